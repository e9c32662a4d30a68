/* What of our environment ComfyUI and its custom nodes get to see. */
#include "base.h"
#include "child_env.h"
#include "unit.h"

#include <stdlib.h>

static const char *const all[] = {
    "PATH=/bin",
    "API_KEY=secret",
    "API_KEYS=not ours",
    "STORE_URL=redis://:secret@host",
    "STORE_URL",
    "TABLESTORE_ACCESS_KEY_ID=id",
    "TABLESTORE_ACCESS_KEY_SECRET=secret",
    "TABLESTORE_SESSION_TOKEN=token",
    "ALIBABA_CLOUD_ACCESS_KEY_ID=id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET=secret",
    "ALIBABA_CLOUD_SECURITY_TOKEN=token",
    "ALIBABA_CLOUD_REGION=x",
    NULL,
};

static void expect(bool pass_credentials, const char *const *wanted)
{
    char **env = child_env_new((char *const *)all, pass_credentials);
    size_t i = 0;
    for (; wanted[i] != NULL; i++)
        assert_string_equal(env[i], wanted[i]);
    assert_null(env[i]);
    free(env);
}

static void secrets_are_left_out(void **state)
{
    (void)state;
    static const char *const wanted[] = {"PATH=/bin", "API_KEYS=not ours", "STORE_URL",
                                         "ALIBABA_CLOUD_REGION=x", NULL};
    expect(false, wanted);
}

static void the_platforms_keys_are_passed_on_when_asked_for(void **state)
{
    (void)state;
    static const char *const wanted[] = {"PATH=/bin",
                                         "API_KEYS=not ours",
                                         "STORE_URL",
                                         "ALIBABA_CLOUD_ACCESS_KEY_ID=id",
                                         "ALIBABA_CLOUD_ACCESS_KEY_SECRET=secret",
                                         "ALIBABA_CLOUD_SECURITY_TOKEN=token",
                                         "ALIBABA_CLOUD_REGION=x",
                                         NULL};
    expect(true, wanted);
}

static void secrets_leave_the_place_where_they_were(void **state)
{
    (void)state;
    char path[] = "PATH=/bin", key[] = "API_KEY=secret", token[] = "ALIBABA_CLOUD_SECURITY_TOKEN=t";
    char *variables[] = {path, key, token, NULL};
    child_env_hide(variables);
    assert_ptr_equal(variables[0], path);
    assert_string_equal(variables[0], "PATH=/bin");
    assert_string_equal(variables[1], "API_KEY=secret");
    assert_string_equal(variables[2], "ALIBABA_CLOUD_SECURITY_TOKEN=t");
    for (size_t i = 0; i < sizeof(key); i++)
        assert_int_equal(key[i], 0);
    for (size_t i = 0; i < sizeof(token); i++)
        assert_int_equal(token[i], 0);
    free(variables[1]);
    free(variables[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_left_out),
        cmocka_unit_test(the_platforms_keys_are_passed_on_when_asked_for),
        cmocka_unit_test(secrets_leave_the_place_where_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
