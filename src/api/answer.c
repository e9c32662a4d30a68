#include "answer.h"

#include <stdio.h>

static const struct {
    int status;
    const char *message;
} failure_answers[] = {
    [FAILURE_PROMPT_REFUSED] = {422, "CallComfyUIPromptError"},
    [FAILURE_OUTPUTS_DROPPED] = {422, "CallComfyUIPromptError"},
    [FAILURE_PROMPT_TOO_LARGE] = {413, "CallComfyUIPromptError"},
    [FAILURE_NODE] = {500, "CallComfyUIPromptError"},
    [FAILURE_INTERRUPTED] = {500, "CallComfyUIPromptError"},
    [FAILURE_CANCELLED] = {500, "CallComfyUIPromptError"},
    [FAILURE_CALLER_LEFT] = {500, "CallComfyUIPromptError"},
    [FAILURE_COMFYUI_DIED] = {502, "CallComfyUIPromptError"},
    [FAILURE_COMFYUI_ERROR] = {502, "CallComfyUIPromptError"},
    [FAILURE_COMFYUI_GARBAGE] = {502, "CallComfyUIPromptError"},
    [FAILURE_PROMPT_LOST] = {502, "CallComfyUIPromptError"},
    [FAILURE_OUTPUT_MISSING] = {502, "MarshalResultError"},
    [FAILURE_STARTING] = {503, "CallComfyUIPromptError"},
    [FAILURE_GAVE_UP] = {503, "CallComfyUIPromptError"},
    [FAILURE_STOPPING] = {503, "CallComfyUIPromptError"},
    [FAILURE_OWNER_DIED] = {502, "CallComfyUIPromptError"},
    [FAILURE_SUPERSEDED] = {503, "CallComfyUIPromptError"},
    [FAILURE_OUT_OF_MEMORY] = {500, "CallComfyUIPromptError"},
    [FAILURE_INPUT] = {400, "RequestParamsError"},
    [FAILURE_ADDRESS_REFUSED] = {403, "ForbiddenError"},
    [FAILURE_TIMEOUT] = {504, "CallComfyUIPromptError"},
    [FAILURE_STALLED] = {504, "CallComfyUIPromptError"},
    [FAILURE_GPU_REFUSED] = {502, "CallComfyUIPromptError"},
    [FAILURE_GPU_UNREACHABLE] = {503, "CallComfyUIPromptError"},
    [FAILURE_INVALID_JSON] = {400, "RequestParamsError"},
    [FAILURE_JSON_TOO_COMPLEX] = {400, "RequestParamsError"},
    [FAILURE_NOT_A_PROMPT] = {400, "RequestParamsError"},
    [FAILURE_UI_FORMAT] = {400, "RequestParamsError"},
    [FAILURE_BAD_ENVELOPE] = {400, "RequestParamsError"},
    [FAILURE_BAD_ID] = {400, "RequestParamsError"},
    [FAILURE_BAD_BODY] = {400, "RequestParamsError"},
    [FAILURE_BODY_TOO_LARGE] = {413, "RequestParamsError"},
    [FAILURE_BODY_TIMEOUT] = {408, "RequestParamsError"},
    [FAILURE_MEDIA_TYPE] = {415, "RequestParamsError"},
    [FAILURE_ENCODING] = {415, "RequestParamsError"},
};

int answer_status_of(enum failure_code code)
{
    ASSERT((size_t)code < ARRAY_LEN(failure_answers));
    return failure_answers[code].status;
}

const char *answer_message_of(enum failure_code code)
{
    ASSERT((size_t)code < ARRAY_LEN(failure_answers));
    return failure_answers[code].message;
}

static void add_header(struct http_headers *h, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0')
        ASSERT(http_headers_add(h, slice_of(name), slice_of(value)) == ERR_OK);
}

void answer_headers(struct http_headers *ret, const struct answer_about *about)
{
    char text[64];
    http_headers_init(ret);
    if (about == NULL)
        return;
    add_header(ret, "task-id", about->task_id);
    add_header(ret, "task-status", about->task_status);
    add_header(ret, "allow", about->allow);
    if (about->etag != NULL) {
        (void)snprintf(text, sizeof(text), "\"%s\"", about->etag);
        add_header(ret, "etag", text);
    }
    if (about->etag != NULL || about->is_of_moment)
        add_header(ret, "cache-control", "no-cache");
    if (about->not_stored)
        add_header(ret, "task-stored", "no");
    if (about->retry_after_s > 0) {
        (void)snprintf(text, sizeof(text), "%u", about->retry_after_s);
        add_header(ret, "retry-after", text);
    }
}

/* A list, weak or not, or a star: RFC 9110, 13.1.2. Our tags have no comma. */
bool answer_is_fresh(struct http_req *req, const char *etag)
{
    struct http_list list = http_list_begin(http_req_headers(req), "if-none-match");
    struct slice tag;
    char quoted[64];
    (void)snprintf(quoted, sizeof(quoted), "\"%s\"", etag);
    while (http_list_next(&list, &tag)) {
        if (tag.len > 2 && tag.ptr[0] == 'W' && tag.ptr[1] == '/')
            tag = (struct slice){tag.ptr + 2, tag.len - 2};
        if (slice_is(tag, "*") || slice_is(tag, quoted))
            return true;
    }
    return false;
}

void answer_json(struct http_req *req, int status, struct slice body,
                 const struct answer_about *about)
{
    struct http_headers headers;
    answer_headers(&headers, about);
    http_respond(req, status, ANSWER_JSON, body, &headers);
    http_headers_done(&headers);
}

void answer_envelope(struct buf *out, const char *message, struct slice error)
{
    buf_addf(out, "{\"message\":\"%s\",\"error\":", message);
    buf_add(out, error);
    buf_adds(out, "}");
}

void answer_failure_envelope(struct buf *out, const struct failure *f)
{
    struct buf error;
    buf_init(&error, SIZE_MAX);
    failure_render(f, &error);
    answer_envelope(out, answer_message_of(f->code), buf_slice(&error));
    buf_done(&error);
}

void answer_error_object(struct http_req *req, int status, const char *message, struct slice error,
                         const struct answer_about *about)
{
    struct buf body;
    struct answer_about with = about != NULL ? *about : (struct answer_about){.task_id = NULL};
    if ((status == 503 || status == 429) && with.retry_after_s == 0)
        with.retry_after_s = ANSWER_RETRY_S;
    buf_init(&body, SIZE_MAX);
    answer_envelope(&body, message, error);
    answer_json(req, status, buf_slice(&body), &with);
    buf_done(&body);
}

void answer_error(struct http_req *req, int status, const char *message, const char *code,
                  const char *detail, const struct answer_about *about)
{
    struct buf error;
    buf_init(&error, SIZE_MAX);
    buf_addf(&error, "{\"code\":\"%s\",\"detail\":", code);
    buf_add_json_string(&error, slice_of(detail));
    buf_adds(&error, "}");
    answer_error_object(req, status, message, buf_slice(&error), about);
    buf_done(&error);
}

void answer_failure(struct http_req *req, const struct failure *f, const struct answer_about *about)
{
    struct buf error;
    buf_init(&error, SIZE_MAX);
    failure_render(f, &error);
    answer_error_object(req, answer_status_of(f->code), answer_message_of(f->code),
                        buf_slice(&error), about);
    buf_done(&error);
}
