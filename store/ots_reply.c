/* Not every answer is the service's: gateways in between have pages of their own, which must not be
 * read as messages. The service's have a request id. Successes and errors are checked alike, with
 * two exceptions: refused credentials are not signed, as who has no key of ours cannot sign with
 * it; and an error need not have a checksum, which the vendor's own clients do not ask of it. */
#include "ots_reply.h"

#include "ots_message.h"

#include <stdio.h>

enum { CODE_SHOWN = 48, TEXT_SHOWN = 72, ID_SHOWN = 48, SHOWN_ROOM = 80 };

/* What of a foreign text can be shown in a line of ours. */
static void show(struct slice text, size_t max, char ret[SHOWN_ROOM])
{
    size_t len = 0;
    for (size_t i = 0; i < text.len && len < max; i++) {
        char c = text.ptr[i];
        ret[len++] = (char)(c >= ' ' && c <= '~' ? c : '.');
    }
    ret[len] = '\0';
}

static enum ots_verdict verdict_of_status(int status)
{
    if (status == 413)
        return OTS_TOO_LARGE;
    return status >= 500 ? OTS_UNKNOWN : OTS_WRONG;
}

static enum ots_verdict verdict_of_code(int status, struct slice code, struct slice message)
{
    static const struct {
        const char *code;
        enum ots_verdict verdict;
    } known[] = {
        {"OTSConditionCheckFail", OTS_REFUSED},      {"OTSObjectNotExist", OTS_NO_TABLE},
        {"OTSObjectAlreadyExist", OTS_TABLE_EXISTS}, {"OTSTableNotReady", OTS_NOT_READY},
        {"OTSRowOperationConflict", OTS_AGAIN},      {"OTSServerBusy", OTS_AGAIN},
        {"OTSPartitionUnavailable", OTS_AGAIN},      {"OTSStorageServerBusy", OTS_AGAIN},
        {"OTSOperationThrottled", OTS_SLOWER},       {"OTSNotEnoughCapacityUnit", OTS_SLOWER},
        {"OTSCapacityUnitExhausted", OTS_SLOWER},    {"OTSAuthFailed", OTS_NO_ENTRY},
        {"OTSRequestBodyTooLarge", OTS_TOO_LARGE},   {"OTSOutOfRowSizeLimit", OTS_TOO_LARGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (slice_is(code, known[i].code))
            return known[i].verdict;
    if (slice_is(code, "OTSQuotaExhausted") && slice_is(message, "Too frequent table operations."))
        return OTS_SLOWER;
    return verdict_of_status(status);
}

static enum ots_verdict judge_foreign(const struct ots_reply *reply, struct err *err)
{
    (void)err_set(err, ERR_UNAVAILABLE, "answered with status %d, not by Tablestore",
                  reply->status);
    if (reply->status >= 200 && reply->status < 300)
        return OTS_CORRUPT;
    return verdict_of_status(reply->status);
}

/* The service's words for a refused signature may repeat what was signed. What it does not say
 * plainly is that a date was too far from its own. */
static struct slice words_of(const struct ots_reply *reply, const struct ots_asked *asked,
                             enum ots_verdict verdict, struct slice message)
{
    if (verdict != OTS_NO_ENTRY)
        return message;
    return http_headers_has(reply->headers, "x-ots-date") &&
                   !ots_is_timely(reply->headers, asked->wall_ms)
               ? SLICE("our clock is more than 15 minutes wrong")
               : SLICE("the credentials are refused");
}

static enum ots_verdict judge_error(const struct ots_reply *reply, const struct ots_asked *asked,
                                    struct slice code, struct slice message, struct err *err)
{
    char code_text[SHOWN_ROOM], text[SHOWN_ROOM], id[SHOWN_ROOM];
    struct slice request = SLICE_EMPTY;
    enum ots_verdict verdict = verdict_of_code(reply->status, code, message);
    (void)http_headers_get(reply->headers, "x-ots-requestid", &request);
    show(code, CODE_SHOWN, code_text);
    show(words_of(reply, asked, verdict, message), TEXT_SHOWN, text);
    show(request, ID_SHOWN, id);
    (void)err_set(err, verdict == OTS_TOO_LARGE ? ERR_TOO_LARGE : ERR_UNAVAILABLE,
                  "%s: %s (request %s)", code_text, text, id);
    return verdict;
}

static bool is_damaged(const struct ots_reply *reply, bool is_good)
{
    bool is_sealed = http_headers_has(reply->headers, "x-ots-contentmd5");
    return (is_good || is_sealed) && !ots_is_whole(reply->headers, reply->body);
}

enum ots_verdict ots_judge(const struct ots_reply *reply, const struct ots_asked *asked,
                           struct err *err)
{
    bool is_good = reply->status >= 200 && reply->status < 300;
    struct slice code, message;
    if (!http_headers_has(reply->headers, "x-ots-requestid"))
        return judge_foreign(reply, err);
    if (is_damaged(reply, is_good) ||
        (!is_good && ots_error_read(reply->body, &code, &message) != ERR_OK)) {
        (void)err_set(err, ERR_CORRUPT, "an answer was damaged on its way");
        return OTS_CORRUPT;
    }
    bool no_entry = !is_good && slice_is(code, "OTSAuthFailed");
    if (asked->plain && !no_entry &&
        !(ots_is_genuine(reply->headers, asked->signer, asked->path, asked->wall_ms) &&
          ots_is_timely(reply->headers, asked->wall_ms))) {
        (void)err_set(err, ERR_CORRUPT, "an answer is not signed as Tablestore signs, or not now");
        return OTS_CORRUPT;
    }
    return is_good ? OTS_OK : judge_error(reply, asked, code, message, err);
}
