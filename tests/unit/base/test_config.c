/* Settings: defaults, bounds, all faults at once, and no secrets in what is printed. */
#include "config.h"
#include "unit.h"

static const char *const *environment; /* name, value, name, value, …, NULL */

static const char *fake_getenv(const char *name)
{
    for (size_t i = 0; environment != NULL && environment[i] != NULL; i += 2)
        if (strcmp(environment[i], name) == 0)
            return environment[i + 1];
    return NULL;
}

static bool load(struct config *cfg, const char *const *env, struct buf *faults)
{
    environment = env;
    buf_init(faults, SIZE_MAX);
    return config_load(cfg, fake_getenv, faults);
}

static void nothing_set_means_the_defaults(void **state)
{
    (void)state;
    struct config cfg;
    struct buf faults;
    assert_true(load(&cfg, NULL, &faults));
    assert_int_equal(cfg.fc_server_port, 9000);
    assert_int_equal(cfg.comfyui_port, 9001);
    assert_int_equal(cfg.max_concurrency, 1);
    assert_int_equal(cfg.run_timeout_ms, 24 * 3600 * 1000);
    assert_int_equal(cfg.stall_timeout_ms, 15 * 60 * 1000);
    assert_string_equal(cfg.log_level, "info");
    assert_string_equal(cfg.comfyui_url, "");
    config_done(&cfg);
    buf_done(&faults);
}

static void an_empty_variable_is_an_unset_one(void **state)
{
    (void)state;
    static const char *const env[] = {"MAX_QUEUE", "", NULL};
    struct config cfg;
    struct buf faults;
    assert_true(load(&cfg, env, &faults));
    assert_int_equal(cfg.max_queue, 64);
    config_done(&cfg);
    buf_done(&faults);
}

static void times_take_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms; /* 0: refused */
    } table[] = {{"90", 90000},  {"90s", 90000}, {"15m", 900000}, {"2h", 7200000},
                 {"500ms", 500}, {"1d", 0},      {"-1", 0},       {"1.5s", 0},
                 {" 5", 0},      {"s", 0},       {"99ms", 0},     {"99999999999999999999s", 0}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const char *const env[] = {"RUN_TIMEOUT", table[i].text, NULL};
        struct config cfg;
        struct buf faults;
        assert_int_equal(load(&cfg, env, &faults), table[i].ms != 0);
        if (table[i].ms != 0)
            assert_int_equal(cfg.run_timeout_ms, table[i].ms);
        config_done(&cfg);
        buf_done(&faults);
    }
}

static void all_faults_are_told_at_once(void **state)
{
    (void)state;
    static const char *const env[] = {"MAX_QUEUE",    "many",  "LOG_LEVEL", "loud",
                                      "COMFYUI_PORT", "70000", NULL};
    struct config cfg;
    struct buf faults;
    assert_false(load(&cfg, env, &faults));
    assert_non_null(strstr(faults.ptr, "MAX_QUEUE must be"));
    assert_non_null(strstr(faults.ptr, "LOG_LEVEL must be one of: info error warn debug"));
    assert_non_null(strstr(faults.ptr, "COMFYUI_PORT must be"));
    config_done(&cfg);
    buf_done(&faults);
}

static void a_url_that_is_too_long_is_told_without_its_password(void **state)
{
    (void)state;
    char url[1200];
    const char *const env[] = {"STORE_URL", url, NULL};
    struct config cfg;
    struct buf faults;
    memset(url, 'x', sizeof(url) - 1);
    url[sizeof(url) - 1] = '\0';
    memcpy(url, "redis://:s3cret", 15);
    assert_false(load(&cfg, env, &faults));
    assert_null(strstr(faults.ptr, "s3cret"));
    assert_non_null(strstr(faults.ptr, "STORE_URL"));
    assert_non_null(strstr(faults.ptr, "begins with \"redis://\""));
    config_done(&cfg);
    buf_done(&faults);
}

static void the_start_line_tells_what_differs_and_no_password(void **state)
{
    (void)state;
    static const char *const env[] = {"MAX_QUEUE", "7", "STORE_URL", "redis://u:s3cret@h/0", NULL};
    struct config cfg;
    struct buf faults;
    struct buf text;
    buf_init(&text, SIZE_MAX);
    assert_true(load(&cfg, env, &faults));
    config_describe(&cfg, &text);
    assert_string_equal(text.ptr, "STORE_URL=redis://u:***@h/0 MAX_QUEUE=7");
    config_done(&cfg);
    buf_done(&faults);
    buf_done(&text);
}

static void help_and_markdown_name_every_setting(void **state)
{
    (void)state;
    struct buf help;
    struct buf markdown;
    buf_init(&help, SIZE_MAX);
    buf_init(&markdown, SIZE_MAX);
    config_help(&help);
    config_markdown(&markdown);
#define CFG(type, field, name, fallback, min, max, text)                                           \
    assert_non_null(strstr(help.ptr, name));                                                       \
    assert_non_null(strstr(markdown.ptr, "| `" name "` |"));
#include "config.def"
#undef CFG
    buf_done(&help);
    buf_done(&markdown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_means_the_defaults),
        cmocka_unit_test(an_empty_variable_is_an_unset_one),
        cmocka_unit_test(times_take_units),
        cmocka_unit_test(all_faults_are_told_at_once),
        cmocka_unit_test(a_url_that_is_too_long_is_told_without_its_password),
        cmocka_unit_test(the_start_line_tells_what_differs_and_no_password),
        cmocka_unit_test(help_and_markdown_name_every_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
