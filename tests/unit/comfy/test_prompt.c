/* Prompts: what is refused and how it is told, and that what goes out is what came in. */
#include "prompt.h"
#include "unit.h"

static enum err_code parse(struct prompt *p, const char *text, struct prompt_fault *fault)
{
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_adds(&body, text);
    return prompt_parse(p, &body, fault);
}

static void expect_refused(const char *text, const char *code)
{
    struct prompt p;
    struct prompt_fault fault;
    assert_int_not_equal(parse(&p, text, &fault), ERR_OK);
    assert_string_equal(fault.code, code);
    assert_true(fault.err.msg[0] != '\0');
    prompt_done(&p);
}

#define NODE "{\"class_type\":\"A\",\"inputs\":{}}"

static void what_is_no_prompt_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *code;
    } table[] = {
        {"", "invalid_json"},
        {"{", "invalid_json"},
        {"nonsense", "invalid_json"},
        {"{\"3\":" NODE ",\"3\":" NODE "}", "invalid_json"},
        {"[]", "not_a_prompt"},
        {"3", "not_a_prompt"},
        {"{}", "not_a_prompt"},
        {"{\"prompt\":{}}", "not_a_prompt"},
        {"{\"3\":1}", "not_a_prompt"},
        {"{\"3\":{\"inputs\":{}}}", "not_a_prompt"},
        {"{\"3\":{\"class_type\":7,\"inputs\":{}}}", "not_a_prompt"},
        /* These two kill ComfyUI's worker thread. */
        {"{\"3\":" NODE ",\"4\":{\"class_type\":\"B\"}}", "not_a_prompt"},
        {"{\"prompt\":{\"3\":" NODE "},\"extra_data\":null}", "bad_envelope"},
        {"{\"3\":{\"class_type\":\"A\",\"inputs\":[]}}", "not_a_prompt"},
        {"{\"nodes\":[],\"links\":[],\"version\":0.4}", "ui_format"},
        {"{\"prompt\":{\"nodes\":[],\"links\":[]}}", "ui_format"},
        {"{\"prompt\":{\"3\":" NODE "},\"callback\":\"http://x\"}", "bad_envelope"},
        {"{\"prompt\":{\"3\":" NODE "},\"task_id\":7}", "bad_envelope"},
        {"{\"prompt\":{\"3\":" NODE "},\"task_id\":[]}", "bad_envelope"},
        {"{\"prompt\":{\"3\":" NODE "},\"results\":\"all\"}", "bad_envelope"},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        expect_refused(table[i].text, table[i].code);
}

static void a_refused_node_is_named(void **state)
{
    (void)state;
    struct prompt p;
    struct prompt_fault fault;
    (void)parse(&p, "{\"3\":" NODE ",\"x\":{\"class_type\":\"B\"}}", &fault);
    assert_true(slice_is(fault.node_id, "\"x\""));
    assert_non_null(fault.hint);
    prompt_done(&p);
}

static void what_is_no_prompt_may_have_an_id(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"prompt\":{\"3\":{\"class_type\":\"A\"}},\"task_id\":\"t\"}",
        "{\"prompt\":[],\"task_id\":\"t\"}",
        "{\"nodes\":[],\"links\":[],\"task_id\":\"t\"}",
        "{\"prompt\":{\"3\":" NODE "},\"callback\":1,\"task_id\":\"t\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct prompt p;
        struct prompt_fault fault;
        assert_int_equal(parse(&p, texts[i], &fault), ERR_INVALID);
        assert_true(slice_is(p.task_id, "\"t\""));
        prompt_done(&p);
    }
}

static void the_text_goes_out_as_it_came(void **state)
{
    (void)state;
    static const char text[] =
        " { \"3\" :{ \"class_type\":\"K\\u0053ampler\" , \"inputs\":{\"seed\":18446744073709551615,"
        "\"cfg\":8.0,\"x\":1e0,\"deno\\u0069se\":1.00} "
        ",\"_meta\":{\"title\":\"\xe7\x8c\xab\"}}\t}\n";
    struct prompt p;
    struct prompt_fault fault;
    assert_int_equal(parse(&p, text, &fault), ERR_OK);
    assert_int_equal(p.text.len, strlen(text) - 2); /* without the blanks around the document */
    assert_memory_equal(p.text.ptr, text + 1, p.text.len);
    assert_string_equal(p.seeds.ptr, "{}");
    assert_int_equal(p.count, 1);
    prompt_done(&p);
}

static void minus_one_becomes_a_seed_and_nothing_else_does(void **state)
{
    (void)state;
    struct prompt p;
    struct prompt_fault fault;
    assert_int_equal(
        parse(&p,
              "{\"3\":{\"class_type\":\"K\",\"inputs\":{\"seed\":-1,\"steps\":-1,"
              "\"noise_seed\": -1.0 ,\"s\\u0065ed2\":-1}},"
              "\"4\":{\"class_type\":\"K\",\"inputs\":{\"seed\":\"-1\",\"a\":{\"seed\":-1}}}}",
              &fault),
        ERR_OK);
    struct slice seeds = buf_slice(&p.seeds);
    struct slice value;
    int64_t seed = -1;
    assert_int_equal(json_check(seeds, &json_from_client, NULL, NULL), ERR_OK);
    assert_true(json_get(seeds, "3.seed", &value) && json_to_i64(value, &seed));
    assert_true(seed >= 0 && seed <= INT32_MAX);
    assert_true(json_get(seeds, "3.noise_seed", &value));
    assert_false(json_get(seeds, "4.seed", &value));
    struct slice sent;
    int64_t sent_seed = -1;
    assert_true(json_get_path(buf_slice(&p.text), &sent, "3", "inputs", "seed", (char *)NULL));
    assert_true(json_to_i64(sent, &sent_seed));
    assert_int_equal(sent_seed, seed);
    assert_non_null(strstr(p.text.ptr, "\"steps\":-1,"));
    assert_non_null(strstr(p.text.ptr, "\"s\\u0065ed2\":-1"));
    assert_non_null(strstr(p.text.ptr, "{\"seed\":\"-1\",\"a\":{\"seed\":-1}}"));
    prompt_done(&p);
}

static void an_envelope_and_what_people_post_to_comfyui(void **state)
{
    (void)state;
    struct prompt p;
    struct prompt_fault fault;
    assert_int_equal(parse(&p,
                           "{\"client_id\":\"x\",\"task_id\":\"t-1\",\"results\":\"none\","
                           "\"metadata\":{\"k\":[1]},\"extra_data\":{\"extra_pnginfo\":{}},"
                           "\"partial_execution_targets\":[\"3\"],\"prompt\":{\"3\":" NODE "}}",
                           &fault),
                     ERR_OK);
    assert_true(slice_is(p.task_id, "\"t-1\""));
    assert_true(p.says_results && !p.want_results);
    assert_true(slice_is(p.metadata, "{\"k\":[1]}"));
    assert_true(slice_is(p.extra_data, "{\"extra_pnginfo\":{}}"));
    assert_true(slice_is(p.targets, "[\"3\"]"));
    assert_string_equal(p.text.ptr, "{\"3\":" NODE "}");
    prompt_done(&p);
}

static void a_folder_goes_in_front_of_file_names_only(void **state)
{
    (void)state;
    struct prompt p;
    struct prompt_fault fault;
    assert_int_equal(
        parse(&p,
              "{\"9\":{\"class_type\":\"S\",\"inputs\":{ \"filename_prefix\" : "
              "\"a\\u0062\",\"x\":\"filename_prefix\"}},"
              "\"8\":{\"class_type\":\"S\",\"inputs\":{\"filename_prefix\":[\"1\",0]}}}",
              &fault),
        ERR_OK);
    assert_int_equal(prompt_set_folder(&p, "t-1"), ERR_OK);
    assert_string_equal(p.text.ptr,
                        "{\"9\":{\"class_type\":\"S\",\"inputs\":{ \"filename_prefix\" : "
                        "\"t-1/a\\u0062\",\"x\":\"filename_prefix\"}},"
                        "\"8\":{\"class_type\":\"S\",\"inputs\":{\"filename_prefix\":[\"1\",0]}}}");
    assert_int_equal(p.count, 2);
    assert_true(slice_is(p.nodes[0].id, "\"9\""));
    prompt_done(&p);
}

static void a_node_called_prompt_is_a_node(void **state)
{
    (void)state;
    struct prompt p;
    struct prompt_fault fault;
    assert_int_equal(parse(&p, "{\"prompt\":" NODE "}", &fault), ERR_OK);
    assert_true(slice_is(p.nodes[0].id, "\"prompt\""));
    prompt_done(&p);
}

static void the_same_prompt_has_the_same_digest_in_any_wrapping(void **state)
{
    (void)state;
    struct prompt bare;
    struct prompt wrapped;
    struct prompt_fault fault;
    assert_int_equal(parse(&bare, "{\"3\":" NODE "}", &fault), ERR_OK);
    assert_int_equal(parse(&wrapped, "{\"prompt\":{\"3\":" NODE "},\"task_id\":\"a\"}", &fault),
                     ERR_OK);
    assert_string_equal(bare.sha256, wrapped.sha256);
    prompt_done(&bare);
    prompt_done(&wrapped);
}

static void a_prompt_has_the_budget_of_its_body(void **state)
{
    static const char text[] = "{\"3\":{\"class_type\":\"A\",\"inputs\":{\"seed\":-1}}}";
    struct budget budget = {.max = 1000};
    struct prompt prompt;
    struct prompt_fault fault;
    struct buf body;
    struct buf other;
    (void)state;
    buf_init_within(&body, SIZE_MAX, &budget);
    buf_add(&body, slice_of(text));
    assert_int_equal(prompt_parse(&prompt, &body, &fault), ERR_OK);
    assert_int_equal(budget.used, prompt.body.cap + prompt.text.cap);
    buf_init(&other, SIZE_MAX);
    buf_add(&other, buf_slice(&prompt.text));
    assert_int_equal(prompt_set_text(&prompt, &other), ERR_OK);
    assert_int_equal(budget.used, prompt.body.cap + prompt.text.cap);
    prompt_done(&prompt);
    assert_int_equal(budget.used, 0);
    buf_init(&body, SIZE_MAX);
    buf_add(&body, slice_of(text));
    buf_charge(&body, &budget);
    budget.max = budget.used + 32;
    assert_int_equal(prompt_parse(&prompt, &body, &fault), ERR_BUSY);
    prompt_done(&prompt);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_prompt_is_refused_by_name),
        cmocka_unit_test(a_refused_node_is_named),
        cmocka_unit_test(what_is_no_prompt_may_have_an_id),
        cmocka_unit_test(the_text_goes_out_as_it_came),
        cmocka_unit_test(minus_one_becomes_a_seed_and_nothing_else_does),
        cmocka_unit_test(an_envelope_and_what_people_post_to_comfyui),
        cmocka_unit_test(a_folder_goes_in_front_of_file_names_only),
        cmocka_unit_test(a_node_called_prompt_is_a_node),
        cmocka_unit_test(the_same_prompt_has_the_same_digest_in_any_wrapping),
        cmocka_unit_test(a_prompt_has_the_budget_of_its_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
