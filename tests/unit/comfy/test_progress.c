/* The node map: (progress, event) → progress, as api.md's readers see it. */
#include "progress.h"
#include "unit.h"

#include <stdio.h>
#include <time.h>

struct map {
    struct prompt prompt;
    struct progress progress;
};

static void map_open(struct map *m, const char *text)
{
    struct buf body;
    struct prompt_fault fault;
    buf_init(&body, SIZE_MAX);
    buf_adds(&body, text);
    assert_int_equal(prompt_parse(&m->prompt, &body, &fault), ERR_OK);
    progress_init(&m->progress, &m->prompt);
}

static void map_close(struct map *m)
{
    progress_done(&m->progress);
    prompt_done(&m->prompt);
}

static bool apply(struct map *m, const char *message)
{
    struct event e;
    event_parse(&e, slice_of(message));
    return progress_apply(&m->progress, &e, 100);
}

static void expect_map(struct map *m, const char *text)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    progress_render(&m->progress, &out);
    assert_string_equal(out.ptr, text);
    buf_done(&out);
}

#define NODE         "{\"class_type\":\"A\",\"inputs\":{}}"
#define IDLE         "{\"max\":0,\"value\":0,\"start\":0,\"last_updated\":0,\"images\":[]}"
#define DONE         "{\"max\":1,\"value\":1,\"start\":100,\"last_updated\":100,\"images\":[]}"
#define EXECUTING(n) "{\"type\":\"executing\",\"data\":{\"node\":\"" n "\",\"prompt_id\":\"p\"}}"

static void a_node_goes_from_nothing_to_its_end(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"3\":" NODE ",\"9\":" NODE "}");
    expect_map(&m, "{\"3\":" IDLE ",\"9\":" IDLE "}");
    assert_true(apply(&m, EXECUTING("3")));
    expect_map(&m,
               "{\"3\":{\"max\":1,\"value\":0,\"start\":100,\"last_updated\":100,\"images\":[]},"
               "\"9\":" IDLE "}");
    assert_true(
        apply(&m, "{\"type\":\"progress\",\"data\":{\"node\":\"3\",\"value\":5,\"max\":20}}"));
    expect_map(&m,
               "{\"3\":{\"max\":20,\"value\":5,\"start\":100,\"last_updated\":100,\"images\":[]},"
               "\"9\":" IDLE "}");
    assert_true(apply(&m, EXECUTING("9")));
    assert_true(apply(&m, "{\"type\":\"executed\",\"data\":{\"node\":\"9\",\"output\":{\"images\":"
                          "[{\"filename\":\"a.png\",\"subfolder\":\"\",\"type\":\"output\"}]}}}"));
    assert_true(apply(&m, "{\"type\":\"execution_success\",\"data\":{}}"));
    expect_map(&m,
               "{\"3\":{\"max\":20,\"value\":20,\"start\":100,\"last_updated\":100,\"images\":[]},"
               "\"9\":{\"max\":1,\"value\":1,\"start\":100,\"last_updated\":100,\"images\":"
               "[{\"filename\":\"a.png\",\"subfolder\":\"\",\"type\":\"output\"}]}}");
    map_close(&m);
}

static void cached_nodes_are_done_and_unknown_ones_ignored(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"3\":" NODE ",\"9\":" NODE "}");
    assert_true(apply(&m, "{\"type\":\"execution_cached\",\"data\":{\"nodes\":[\"3\",\"77\",5]}}"));
    expect_map(&m, "{\"3\":" DONE ",\"9\":" IDLE "}");
    assert_false(apply(&m, EXECUTING("77")));
    assert_false(
        apply(&m, "{\"type\":\"executing\",\"data\":{\"node\":\"\",\"prompt_id\":\"p\"}}"));
    expect_map(&m, "{\"3\":" DONE ",\"9\":" IDLE "}");
    map_close(&m);
}

static void inner_nodes_fold_into_the_one_that_stands_for_them(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"2\":" NODE ",\"9\":" NODE "}");
    assert_true(apply(
        &m, "{\"type\":\"executing\",\"data\":{\"node\":\"2.0.0.3\",\"display_node\":\"2\"}}"));
    assert_true(
        apply(&m, "{\"type\":\"progress\",\"data\":{\"node\":\"2.0.0.3\",\"value\":1,\"max\":4}}"));
    assert_true(
        apply(&m, "{\"type\":\"progress\",\"data\":{\"node\":null,\"value\":2,\"max\":4}}"));
    expect_map(&m,
               "{\"2\":{\"max\":4,\"value\":2,\"start\":100,\"last_updated\":100,\"images\":[]},"
               "\"9\":" IDLE "}");
    map_close(&m);
}

static void outputs_of_any_key_and_texts_are_kept(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"9\":" NODE "}");
    progress_reconcile(
        &m.progress,
        SLICE("{\"9\":{\"animated\":[true],\"gifs\":[{\"filename\":\"a.mp4\",\"subfolder\":\"v\","
              "\"type\":\"temp\",\"fullpath\":\"/x\"}],\"x\":[NaN,null,[1],\"s\",{\"y\":1}],"
              "\"text\":[\"t\\\"1\",\"t2\"],\"3d\":[{\"filename\":\"m.glb\"}]}}"),
        SLICE_EMPTY, true, 100);
    expect_map(&m, "{\"9\":{\"max\":1,\"value\":1,\"start\":100,\"last_updated\":100,\"images\":["
                   "{\"filename\":\"a.mp4\",\"subfolder\":\"v\",\"type\":\"temp\"},"
                   "{\"filename\":\"m.glb\",\"subfolder\":\"\",\"type\":\"output\"}],"
                   "\"text\":[\"t\\\"1\",\"t2\"]}}");
    map_close(&m);
}

static void outputs_are_kept_up_to_a_bound_and_that_there_were_more_is_told(void **state)
{
    (void)state;
    enum { NODES = 9, TEXT = 1000000 };
    struct map m;
    struct buf prompt;
    struct buf outputs;
    buf_init(&prompt, SIZE_MAX);
    buf_init(&outputs, SIZE_MAX);
    for (int i = 0; i < NODES; i++) {
        buf_addf(&prompt, "%s\"%d\":" NODE, i > 0 ? "," : "{", i);
        buf_addf(&outputs, "%s\"%d\":{\"text\":[\"%0*d\"]}", i > 0 ? "," : "{", i, TEXT, 0);
    }
    buf_adds(&prompt, "}");
    buf_adds(&outputs, "}");
    map_open(&m, prompt.ptr);
    for (int times = 0; times < 3; times++) { /* what was cleared does not count */
        progress_reconcile(&m.progress, buf_slice(&outputs), SLICE_EMPTY, true, 100);
        assert_true(m.progress.truncated);
        for (unsigned i = 0; i < NODES; i++)
            assert_int_equal(m.progress.nodes[i].texts != NULL, i < PROGRESS_OUTPUTS_MAX / TEXT);
    }
    progress_reconcile(&m.progress, SLICE("{}"), SLICE_EMPTY, true, 100);
    assert_false(m.progress.truncated);
    assert_int_equal(m.progress.output_bytes, 0);
    map_close(&m);
    buf_done(&prompt);
    buf_done(&outputs);
}

static void history_replaces_what_events_said_of_outputs(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"2\":" NODE "}");
    assert_true(apply(&m, "{\"type\":\"executed\",\"data\":{\"node\":\"2\",\"output\":{\"images\":"
                          "[{\"filename\":\"old.png\"}]}}}"));
    progress_reconcile(&m.progress, SLICE("{\"2.0.1\":{\"images\":[{\"filename\":\"new.png\"}]}}"),
                       SLICE("{\"2.0.1\":{\"display_node\":\"2\"}}"), true, 100);
    assert_int_equal(m.progress.nodes[0].file_count, 1);
    assert_string_equal(m.progress.nodes[0].files[0].filename, "\"new.png\"");
    map_close(&m);
}

#define EXECUTED(n) "{\"type\":\"executed\",\"data\":{\"node\":\"" n "\",\"output\":null}}"
#define SUCCESS     "{\"type\":\"execution_success\",\"data\":{}}"

/* 1 feeds 2; 3 feeds nobody: a list of texts is no link. */
static void what_may_be_missing_is_known(void **state)
{
    (void)state;
    static const struct {
        bool heard_all;
        const char *messages[6];
    } cases[] = {
        {true, {EXECUTING("1"), EXECUTING("2"), EXECUTED("2"), EXECUTING("3"), EXECUTED("3")}},
        {true, {EXECUTING("3"), EXECUTED("3"), EXECUTING("1"), EXECUTING("2"), EXECUTED("2")}},
        {false, {EXECUTING("1"), EXECUTING("2"), EXECUTED("2"), EXECUTING("3")}},
        {false, {EXECUTING("1"), EXECUTING("2"), EXECUTING("3"), EXECUTED("3")}},
        {false, {EXECUTING("2"), EXECUTED("2"), EXECUTING("3"), EXECUTED("3")}},
        {false, {EXECUTED("1"), EXECUTING("2"), EXECUTED("2"), EXECUTING("3"), EXECUTED("3")}},
        {false,
         {EXECUTING("1"), EXECUTING("2"), EXECUTED("2"), EXECUTED("2"), EXECUTING("3"),
          EXECUTED("3")}},
        {false,
         {"{\"type\":\"execution_cached\",\"data\":{\"nodes\":[\"1\"]}}", EXECUTING("2"),
          EXECUTED("2"), EXECUTING("3"), EXECUTED("3")}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct map m;
        map_open(&m, "{\"1\":" NODE ",\"2\":{\"class_type\":\"B\",\"inputs\":{\"from\":[\"1\",0]}},"
                     "\"3\":{\"class_type\":\"C\",\"inputs\":{\"of\":[\"3\",\"3\"],\"to\":[\"3\"],"
                     "\"and\":[\"3\",0,1],\"n\":3}}}");
        for (unsigned k = 0; k < ARRAY_LEN(cases[i].messages) && cases[i].messages[k] != NULL; k++)
            (void)apply(&m, cases[i].messages[k]);
        (void)apply(&m, SUCCESS);
        struct silent_classes none;
        silent_init(&none);
        assert_int_equal(progress_heard_all(&m.progress, &m.prompt, &none), cases[i].heard_all);
        map_close(&m);
    }
}

/* A run of 1 (class A), which feeds 2 (class B), and of 3 (class C), with these messages between.
 */
static void run_three(struct map *m, const char *of_two, const char *of_three)
{
    map_open(m, "{\"1\":" NODE ",\"2\":{\"class_type\":\"B\",\"inputs\":{\"from\":[\"1\",0]}},"
                "\"3\":{\"class_type\":\"C\",\"inputs\":{}}}");
    (void)apply(m, EXECUTING("1"));
    (void)apply(m, EXECUTING("2"));
    (void)apply(m, of_two);
    (void)apply(m, EXECUTING("3"));
    (void)apply(m, of_three);
    (void)apply(m, SUCCESS);
}

#define NOTHING "{\"type\":\"status\",\"data\":{}}"
#define PICTURE(n)                                                                                 \
    "{\"type\":\"executed\",\"data\":{\"node\":\"" n "\",\"output\":{\"images\":["                 \
    "{\"filename\":\"a.png\",\"subfolder\":\"\",\"type\":\"output\"}]}}}"

#define A_PICTURE "{\"images\":[{\"filename\":\"a.png\",\"subfolder\":\"\",\"type\":\"output\"}]}"

/* A success of run_three() as the history tells of it, so often. */
static void learn(struct silent_classes *silent, const char *of_two, const char *outputs,
                  bool whole, int times)
{
    for (int i = 0; i < times; i++) {
        struct map m;
        run_three(&m, of_two, NOTHING);
        progress_reconcile(&m.progress, slice_of(outputs), SLICE_EMPTY, true, 100);
        progress_learn_classes(&m.progress, &m.prompt, whole, silent);
        map_close(&m);
    }
}

static bool heard_all(const struct silent_classes *silent, const char *of_two, const char *of_three)
{
    struct map m;
    run_three(&m, of_two, of_three);
    bool all = progress_heard_all(&m.progress, &m.prompt, silent);
    map_close(&m);
    return all;
}

static void who_never_says_anything_is_known(void **state)
{
    (void)state;
    struct silent_classes silent;
    silent_init(&silent);
    learn(&silent, PICTURE("2"), "{\"2\":" A_PICTURE "}", true, SILENT_RUNS - 1);
    assert_false(heard_all(&silent, PICTURE("2"), NOTHING));
    learn(&silent, PICTURE("2"), "{\"2\":" A_PICTURE "}", true, 1);
    assert_true(silent_has(&silent, SLICE("\"C\"")));
    assert_false(silent_has(&silent, SLICE("\"A\""))); /* it stands at no end */
    assert_true(heard_all(&silent, PICTURE("2"), NOTHING));
    assert_false(heard_all(&silent, NOTHING, NOTHING)); /* of B, a message is missing */
}

static void who_speaks_sometimes_is_never_taken_for_silent(void **state)
{
    (void)state;
    struct silent_classes silent;
    silent_init(&silent);
    learn(&silent, PICTURE("2"), "{\"2\":" A_PICTURE "}", false, 1);
    learn(&silent, NOTHING, "{}", true, SILENT_RUNS);
    assert_false(silent_has(&silent, SLICE("\"B\"")));
    assert_true(silent_has(&silent, SLICE("\"C\"")));
    /* Its message was lost, and others: what the history says for it counts all the same. */
    learn(&silent, NOTHING, "{\"3\":{\"text\":[\"t\"]}}", false, 1);
    learn(&silent, NOTHING, "{}", true, SILENT_RUNS);
    assert_false(silent_has(&silent, SLICE("\"C\"")));
}

/* Two of one class, of which the second was blocked: it is the one class. */
static void of_two_nodes_one_may_speak_for_both(void **state)
{
    (void)state;
    struct silent_classes silent;
    silent_init(&silent);
    for (int i = 0; i < SILENT_RUNS; i++) {
        struct map m;
        map_open(&m, "{\"1\":{\"class_type\":\"S\",\"inputs\":{}},"
                     "\"2\":{\"class_type\":\"S\",\"inputs\":{}}}");
        (void)apply(&m, EXECUTING("1"));
        (void)apply(&m, PICTURE("1"));
        (void)apply(&m, EXECUTING("2"));
        (void)apply(&m, SUCCESS);
        progress_reconcile(&m.progress, SLICE("{\"1\":" A_PICTURE "}"), SLICE_EMPTY, true, 100);
        progress_learn_classes(&m.progress, &m.prompt, true, &silent);
        map_close(&m);
    }
    assert_false(silent_has(&silent, SLICE("\"S\"")));
}

/* A branch is blocked that has three of them. */
static void several_nodes_of_one_run_are_one_silence(void **state)
{
    (void)state;
    struct map m;
    struct silent_classes silent;
    silent_init(&silent);
    map_open(&m, "{\"1\":{\"class_type\":\"S\",\"inputs\":{}},"
                 "\"2\":{\"class_type\":\"S\",\"inputs\":{}},"
                 "\"3\":{\"class_type\":\"S\",\"inputs\":{}}}");
    (void)apply(&m, EXECUTING("1"));
    (void)apply(&m, EXECUTING("2"));
    (void)apply(&m, EXECUTING("3"));
    (void)apply(&m, SUCCESS);
    for (int i = 0; i < SILENT_RUNS; i++) {
        assert_false(silent_has(&silent, SLICE("\"S\"")));
        progress_learn_classes(&m.progress, &m.prompt, true, &silent);
    }
    assert_true(silent_has(&silent, SLICE("\"S\"")));
    map_close(&m);
}

/* Neither a file nor a text; and its message was lost. */
static void whom_the_history_lists_has_spoken(void **state)
{
    (void)state;
    struct silent_classes silent;
    silent_init(&silent);
    learn(&silent, NOTHING, "{\"3\":{\"value\":[1]}}", true, 1);
    learn(&silent, NOTHING, "{}", true, SILENT_RUNS);
    assert_false(silent_has(&silent, SLICE("\"C\"")));
}

/* Lost messages, outputs that were dropped, a cached run, a map without its prompt. */
static void silence_means_something_only_where_all_is_known(void **state)
{
    (void)state;
    struct map m;
    struct silent_classes silent;
    silent_init(&silent);
    learn(&silent, NOTHING, "{}", false, SILENT_RUNS);
    for (int i = 0; i < SILENT_RUNS; i++) {
        run_three(&m, NOTHING, NOTHING);
        progress_reconcile(&m.progress, SLICE("{}"), SLICE_EMPTY, true, 100);
        m.progress.truncated = true;
        progress_learn_classes(&m.progress, &m.prompt, true, &silent);
        map_close(&m);

        map_open(&m, "{\"1\":{\"class_type\":\"C\",\"inputs\":{}}}");
        (void)apply(&m, "{\"type\":\"execution_cached\",\"data\":{\"nodes\":[\"1\"]}}");
        (void)apply(&m, EXECUTED("1"));
        progress_reconcile(&m.progress, SLICE("{}"), SLICE_EMPTY, true, 100);
        progress_learn_classes(&m.progress, &m.prompt, true, &silent);
        map_close(&m);
    }
    assert_false(silent_has(&silent, SLICE("\"C\"")));

    struct prompt unknown;
    prompt_init_empty(&unknown);
    run_three(&m, NOTHING, NOTHING);
    for (int i = 0; i < SILENT_RUNS; i++)
        progress_learn_classes(&m.progress, &unknown, true, &silent);
    assert_false(silent_has(&silent, SLICE_EMPTY));
    assert_false(progress_heard_all(&m.progress, &unknown, &silent));
    map_close(&m);
    prompt_done(&unknown);

    learn(&silent, NOTHING, "{}", true, SILENT_RUNS); /* the cached node had not spoken, either */
    assert_true(silent_has(&silent, SLICE("\"C\"")));
}

static void ids_are_the_same_in_any_spelling(void **state)
{
    (void)state;
    struct map m;
    map_open(&m, "{\"\\u0033\":" NODE ",\"\xe7\x8c\xab\":" NODE "}");
    assert_int_equal(progress_find(&m.progress, SLICE("\"3\"")), 0);
    assert_int_equal(progress_find(&m.progress, SLICE("\"\\u732b\"")), 1);
    assert_int_equal(progress_find(&m.progress, SLICE("\"4\"")), -1);
    map_close(&m);
}

static void a_node_map_can_be_read_back(void **state)
{
    (void)state;
    static const char *const maps[] = {
        "{}",
        "{\"3\":" IDLE ",\"9\":" DONE "}",
        "{\"9\":{\"max\":20,\"value\":7.5,\"start\":100,\"last_updated\":200,\"images\":["
        "{\"filename\":\"a.mp4\",\"subfolder\":\"v\\u00e9\",\"type\":\"temp\"}],"
        "\"text\":[\"t\\\"1\",\"t2\"]}}",
    };
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) {
        struct progress p;
        struct buf out;
        buf_init(&out, SIZE_MAX);
        progress_read(&p, slice_of(maps[i]));
        progress_render(&p, &out);
        assert_string_equal(out.ptr, maps[i]);
        progress_done(&p);
        buf_done(&out);
    }
}

static double seconds_of(struct map *m, const char *message, unsigned times)
{
    struct timespec from;
    struct timespec to;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (unsigned i = 0; i < times; i++)
        (void)apply(m, message);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

/* Not a timed test but a ratio: 500 times the nodes may not cost several times as much. */
static void an_event_costs_the_same_at_any_number_of_nodes(void **state)
{
    (void)state;
    static const unsigned sizes[] = {10, 5000};
    double spent[2] = {1e9, 1e9};
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 2; i++) {
            struct map m;
            struct buf text;
            char message[128];
            buf_init(&text, SIZE_MAX);
            for (unsigned n = 0; n < sizes[i]; n++)
                buf_addf(&text, "%c\"%u\":" NODE, n == 0 ? '{' : ',', 100000 + n);
            buf_adds(&text, "}");
            map_open(&m, text.ptr);
            buf_done(&text);
            (void)snprintf(
                message, sizeof(message),
                "{\"type\":\"progress\",\"data\":{\"node\":\"%u\",\"value\":1,\"max\":9}}",
                100000 + sizes[i] - 1);
            double took = seconds_of(&m, message, 2000);
            spent[i] = took < spent[i] ? took : spent[i];
            map_close(&m);
        }
    }
    assert_true(spent[1] < spent[0] * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_goes_from_nothing_to_its_end),
        cmocka_unit_test(cached_nodes_are_done_and_unknown_ones_ignored),
        cmocka_unit_test(inner_nodes_fold_into_the_one_that_stands_for_them),
        cmocka_unit_test(outputs_of_any_key_and_texts_are_kept),
        cmocka_unit_test(outputs_are_kept_up_to_a_bound_and_that_there_were_more_is_told),
        cmocka_unit_test(history_replaces_what_events_said_of_outputs),
        cmocka_unit_test(what_may_be_missing_is_known),
        cmocka_unit_test(who_never_says_anything_is_known),
        cmocka_unit_test(who_speaks_sometimes_is_never_taken_for_silent),
        cmocka_unit_test(of_two_nodes_one_may_speak_for_both),
        cmocka_unit_test(several_nodes_of_one_run_are_one_silence),
        cmocka_unit_test(whom_the_history_lists_has_spoken),
        cmocka_unit_test(silence_means_something_only_where_all_is_known),
        cmocka_unit_test(ids_are_the_same_in_any_spelling),
        cmocka_unit_test(a_node_map_can_be_read_back),
        cmocka_unit_test(an_event_costs_the_same_at_any_number_of_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
