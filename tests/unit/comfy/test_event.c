/* What ComfyUI's socket, history and queue say, as the two ages spell it, and as they should not.
 */
#include "event.h"
#include "history.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

static struct event parse(const char *text)
{
    struct event e;
    event_parse(&e, slice_of(text));
    return e;
}

static void every_known_message_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum event_type type;
    } table[] = {
        {"{\"type\": \"status\", \"data\": {\"status\": {}, \"sid\": \"x\"}}", EVENT_STATUS},
        {"{\"type\": \"execution_start\", \"data\": {\"prompt_id\": \"p\"}}", EVENT_START},
        {"{\"type\": \"execution_cached\", \"data\": {\"nodes\": [], \"prompt_id\": \"p\"}}",
         EVENT_CACHED},
        {"{\"type\": \"executing\", \"data\": {\"node\": \"3\", \"prompt_id\": \"p\"}}",
         EVENT_EXECUTING},
        {"{\"type\": \"executing\", \"data\": {\"node\": null, \"prompt_id\": \"p\"}}", EVENT_OVER},
        {"{\"type\": \"progress\", \"data\": {\"value\": 1, \"max\": 4.0}}", EVENT_PROGRESS},
        {"{\"type\": \"executed\", \"data\": {\"node\": \"9\", \"output\": null}}", EVENT_EXECUTED},
        {"{\"type\": \"execution_success\", \"data\": {}}", EVENT_SUCCESS},
        {"{\"type\": \"execution_error\", \"data\": {}}", EVENT_ERROR},
        {"{\"type\": \"execution_interrupted\", \"data\": {}}", EVENT_INTERRUPTED},
        {"{\"type\": \"progress_state\", \"data\": {\"nodes\": {}}}", EVENT_OTHER},
        {"{\"type\": \"logs\", \"data\": [1]}", EVENT_FOREIGN},
        {"{\"type\": \"pack.event\", \"data\": null}", EVENT_FOREIGN},
        {"{\"type\": \"pack.event\", \"data\": {\"prompt_id\": \"p\"}}", EVENT_OTHER},
        {"{\"type\": \"progress\", \"data\": {\"value\": \"a\", \"max\": 4}}", EVENT_OTHER},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        assert_int_equal(parse(table[i].text).type, table[i].type);
}

static void what_cannot_be_read_is_odd_and_ends_nothing(void **state)
{
    (void)state;
    static const char *const table[] = {
        "",
        "{",
        "[]",
        "1",
        "{\"data\": {}}",
        "{\"type\": 7}",
        "\xff\xfe",
        "{\"type\": \"executing\"}",
        "{\"type\": \"executing\", \"data\": []}",
        "{\"type\": \"execution_cached\", \"data\": {}}",
        "{\"type\": \"execution_success\", \"data\": {}",
        "{\"type\": \"execution_success\", \"data\": {}]",
        "{\"type\": \"execution_success\", \"data\": {}}}",
        "{\"type\": \"execution_success\", \"data\": {}}, 1",
        "{\"type\": \"execution_success\", \"data\": {\"node\": 01}}",
        "{\"type\": \"execution_success\", \"data\": {}, 1}",
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        assert_int_equal(parse(table[i]).type, EVENT_ODD);
    /* Not what ComfyUI writes, and JSON: the last one counts. */
    assert_int_equal(
        parse("{\"type\": \"execution_success\", \"data\": {}, \"type\": \"status\"}").type,
        EVENT_STATUS);
    assert_int_equal(parse("{\"type\": \"execution_success_\", \"data\": {}}").type, EVENT_FOREIGN);
}

static void nan_and_lone_surrogates_are_no_reason_to_stop(void **state)
{
    (void)state;
    struct event e = parse("{\"type\": \"executed\", \"data\": {\"node\": \"9\", \"output\": "
                           "{\"x\": [NaN, -Infinity, \"\\ud800\"]}, \"prompt_id\": \"p\"}}");
    assert_int_equal(e.type, EVENT_EXECUTED);
    assert_true(e.output.len > 0);
}

static void a_blocked_branch_is_not_the_end(void **state)
{
    (void)state;
    assert_true(parse("{\"type\": \"execution_error\", \"data\": {\"exception_type\": "
                      "\"ExecutionBlocked\"}}")
                    .is_blocked);
    assert_false(
        parse("{\"type\": \"execution_error\", \"data\": {\"exception_type\": \"ValueError\"}}")
            .is_blocked);
}

static void only_the_greeting_has_a_sid(void **state)
{
    (void)state;
    assert_true(parse("{\"type\":\"status\",\"data\":{\"sid\":\"a\"}}").is_greeting);
    assert_false(parse("{\"type\":\"status\",\"data\":{\"status\":{}}}").is_greeting);
}

/* --- the same again and again ---------------------------------------------------------------- */

static void assert_same(struct slice read, struct slice parsed)
{
    assert_int_equal(read.len, parsed.len);
    assert_true(read.len == 0 || read.ptr == parsed.ptr);
}

/* In memory as long as it is and no longer. */
static void check_read(struct event_reader *r, const char *message)
{
    struct event read, parsed;
    size_t len = strlen(message);
    char *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, message, len);
    event_read(r, &read, (struct slice){copy, len});
    event_parse(&parsed, (struct slice){copy, len});
    assert_int_equal(read.type, parsed.type);
    assert_true(read.value >= parsed.value && read.value <= parsed.value);
    assert_true(read.max >= parsed.max && read.max <= parsed.max);
    assert_same(read.prompt_id, parsed.prompt_id);
    assert_same(read.node, parsed.node);
    assert_same(read.display_node, parsed.display_node);
    assert_same(read.data, parsed.data);
    free(copy);
}

/* Each value after each other one, in each frame. */
static void a_reader_tells_what_parsing_would(void **state)
{
    static const char *const frames[] = {
        "{\"type\": \"progress\", \"data\": {\"value\": %s, \"max\": 20, \"prompt_id\": \"p\", "
        "\"node\": \"3\"}}",
        "{\"type\": \"progress\", \"data\": {\"prompt_id\": \"p\", \"max\": 20, \"node\": \"3\", "
        "\"value\": %s}}",
        "{\"type\": \"progress\", \"data\": {\"value\": %s, \"max\": 30, \"prompt_id\": \"p\", "
        "\"node\": \"3\"}}",
        " {\"data\": {\"node\": \"3\", \"value\": %s, \"display_node\": \"1\", \"max\": 7}, "
        "\"type\": \"progress\"}\n",
        "{\"type\": \"progress\", \"data\": {\"value\": 1, \"value\": %s, \"max\": 20}}",
        "{\"type\": \"executing\", \"data\": {\"node\": \"%s\", \"prompt_id\": \"p\"}}",
    };
    static const char *const values[] = {
        "1",
        "2",
        "10",
        "11",
        "999999999",
        "1000000000",
        "999999999999999",
        "9007199254740993",
        "123456789012345678901",
        "0",
        "00",
        "1",
        "01",
        "1.5",
        "1e2",
        "-1",
        "null",
        "",
        "1 ",
    };
    struct event_reader r = {.len = 0};
    char message[256];
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(frames) * ARRAY_LEN(frames); f++) {
        for (size_t v = 0; v < ARRAY_LEN(values) * ARRAY_LEN(values); v++) {
            const char *frame = frames[v % 2 ? f % ARRAY_LEN(frames) : f / ARRAY_LEN(frames)];
            const char *value = values[v % 2 ? v / ARRAY_LEN(values) : v % ARRAY_LEN(values)];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            (void)snprintf(message, sizeof(message), frame, value);
#pragma GCC diagnostic pop
            check_read(&r, message);
        }
    }
}

static void what_is_too_long_to_be_kept_is_read_all_the_same(void **state)
{
    struct event_reader r = {.len = 0};
    char message[EVENT_KEEP_BYTES + 32];
    (void)state;
    for (int room = EVENT_KEEP_BYTES - 8; room < EVENT_KEEP_BYTES + 8; room++) {
        for (int value = 8; value < 12; value++) {
            (void)snprintf(message, sizeof(message),
                           "{\"type\": \"progress\", \"data\": {\"value\": %d, \"max\": 20, \"n\": "
                           "%*d}}",
                           value, room - 60, 1);
            check_read(&r, message);
        }
    }
}

/* --- history and queue ----------------------------------------------------------------------- */

static enum history_end end_of(const char *entry)
{
    struct history h;
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_addf(&body, "{\"p\": %s}", entry);
    assert_int_equal(history_parse(&h, buf_slice(&body), "p", NULL), ERR_OK);
    buf_done(&body);
    return h.end;
}

static void history_ends_by_its_last_message(void **state)
{
    (void)state;
    assert_int_equal(end_of("{\"status\": {\"status_str\": \"success\", \"completed\": true, "
                            "\"messages\": [[\"execution_success\", {}]]}}"),
                     HISTORY_SUCCESS);
    assert_int_equal(end_of("{\"status\": {\"status_str\": \"error\", \"messages\": "
                            "[[\"execution_start\", {}], [\"execution_interrupted\", {}]]}}"),
                     HISTORY_INTERRUPTED);
    /* An error between two nodes leaves the success flag of the node before. */
    assert_int_equal(end_of("{\"status\": {\"status_str\": \"success\", \"messages\": "
                            "[[\"execution_error\", {\"node_id\": \"3\"}]]}}"),
                     HISTORY_ERROR);
    assert_int_equal(end_of("{\"status\": {\"status_str\": \"error\", \"messages\": []}}"),
                     HISTORY_ERROR);
    assert_int_equal(end_of("{\"outputs\": {}}"), HISTORY_SUCCESS);
    assert_int_equal(end_of("{\"status\": {\"status_str\": \"success\", \"messages\": "
                            "[7, [], [1, 2], [\"execution_success\"]]}}"),
                     HISTORY_SUCCESS);
}

static void an_unknown_prompt_has_no_end_and_garbage_no_meaning(void **state)
{
    (void)state;
    struct history h;
    assert_int_equal(history_parse(&h, SLICE("{}"), "p", NULL), ERR_OK);
    assert_int_equal(h.end, HISTORY_NONE);
    assert_int_equal(history_parse(&h, SLICE("[]"), "p", NULL), ERR_PROTOCOL);
    assert_int_equal(history_parse(&h, SLICE("{\"p\": 7}"), "p", NULL), ERR_PROTOCOL);
    assert_int_equal(history_parse(&h, SLICE("{\"p\": {"), "p", NULL), ERR_PROTOCOL);
}

static void the_queue_tells_where_a_prompt_is(void **state)
{
    (void)state;
    struct queue queue;
    struct slice body =
        SLICE("{\"queue_running\": [[0.5, \"r\", {}, {}, []]], \"queue_pending\": "
              "[[1, \"p\", {\"3\": {\"inputs\": {\"seed\": 18446744073709551615}}}, {}, []]]}");
    assert_int_equal(queue_parse(&queue, body, NULL), ERR_OK);
    assert_int_equal(queue_place_of(&queue, "r"), QUEUE_RUNNING);
    assert_int_equal(queue_place_of(&queue, "p"), QUEUE_PENDING);
    assert_int_equal(queue_place_of(&queue, "x"), QUEUE_ABSENT);
    assert_int_equal(queue_parse(&queue, SLICE("{}"), NULL), ERR_PROTOCOL);
    assert_int_equal(queue_parse(&queue, SLICE("[]"), NULL), ERR_PROTOCOL);
    assert_int_equal(queue_parse(&queue, SLICE("<html>"), NULL), ERR_PROTOCOL);
}

static struct event parse_binary(const char *bytes, size_t len)
{
    static char *copy; /* as long as it is and no longer; the event points into it */
    struct event e;
    free(copy);
    copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    event_parse_binary(&e, (struct slice){copy, len});
    return e;
}
#define BINARY(literal) parse_binary(literal, sizeof(literal) - 1)

static void previews_of_both_ages(void **state)
{
    (void)state;
    struct event e = BINARY("\0\0\0\1\0\0\0\2image");
    assert_int_equal(e.type, EVENT_PREVIEW);
    assert_string_equal(e.media_type, "image/png");
    assert_true(slice_is(e.image, "image"));
    assert_int_equal(e.prompt_id.len + e.node.len + e.display_node.len, 0);

    e = BINARY(
        "\0\0\0\4\0\0\0\x51{\"node_id\":\"3:1\",\"display_node_id\":\"3\",\"prompt_id\":\"p\","
        "\"image_type\":\"image/jpeg\"}image");
    assert_int_equal(e.type, EVENT_PREVIEW);
    assert_string_equal(e.media_type, "image/jpeg");
    assert_true(slice_is(e.prompt_id, "\"p\""));
    assert_true(slice_is(e.node, "\"3:1\""));
    assert_true(slice_is(e.display_node, "\"3\""));
    assert_true(slice_is(e.image, "image"));
}

static void binary_messages_that_are_no_previews(void **state)
{
    (void)state;
    assert_int_equal(BINARY("").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\1").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\1\0\0\0").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\1\0\0\0\3image").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\3\0\0\0\1text").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\0\0\0\3{}").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\xff\xff\xff\xff{}").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\0\0\0\2{}image").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\0\0\0\3\"a\"image").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\0\0\0\0image").type, EVENT_OTHER);
    assert_int_equal(BINARY("\0\0\0\4\0\0\0\1{image").type, EVENT_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_known_message_is_told_apart),
        cmocka_unit_test(what_cannot_be_read_is_odd_and_ends_nothing),
        cmocka_unit_test(nan_and_lone_surrogates_are_no_reason_to_stop),
        cmocka_unit_test(a_blocked_branch_is_not_the_end),
        cmocka_unit_test(only_the_greeting_has_a_sid),
        cmocka_unit_test(a_reader_tells_what_parsing_would),
        cmocka_unit_test(what_is_too_long_to_be_kept_is_read_all_the_same),
        cmocka_unit_test(history_ends_by_its_last_message),
        cmocka_unit_test(an_unknown_prompt_has_no_end_and_garbage_no_meaning),
        cmocka_unit_test(the_queue_tells_where_a_prompt_is),
        cmocka_unit_test(previews_of_both_ages),
        cmocka_unit_test(binary_messages_that_are_no_previews),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
