/* See the drawing in store_mysql_link.h.
 *
 * A call of the library that would block comes back and says what to wait for; it is continued when
 * that has come. Whatever it waits for, it is the descriptor: the library's own timeouts are for
 * the calls that block, and not listened to here. */
#include "store_mysql_link.h"

#include "store_mysql_lib.h"

#include <fcntl.h>
#ifdef STORE_MYSQL_OPENSSL
#include <openssl/err.h>
#endif
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void link_go_on(struct sql_link *l, int waits);

/* --- coming and going ------------------------------------------------------------------------ */

static void link_rest(struct sql_link *l, enum sql_link_state state)
{
    l->state = state;
    if (!l->closing)
        l->changed(l);
    else if (state == SQL_DOWN)
        l->closed(l);
}

static void link_on_disconnected(struct work *w)
{
    struct sql_link *l = CONTAINER_OF(w, struct sql_link, job);
    link_rest(l, SQL_DOWN);
}

static void link_close_work(struct work *w)
{
    struct sql_link *l = CONTAINER_OF(w, struct sql_link, job);
    sql_close_work(l);
    l->needs.release(l);
}

static void link_connect_work(struct work *w)
{
    struct sql_link *l = CONTAINER_OF(w, struct sql_link, job);
    sql_connect_work(l);
    l->needs.release(l);
}

/* No thread was free for it before the end: sql_link_done() closes what is connected. */
static void link_on_dropped(struct work *w)
{
    struct sql_link *l = CONTAINER_OF(w, struct sql_link, job);
    l->needs.release(l);
}

static void link_give_to_thread(struct sql_link *l, void (*run)(struct work *w),
                                void (*done)(struct work *w))
{
    l->job = (struct work){.run = run, .done = done, .dropped = link_on_dropped};
    l->needs.hold(l);
    workers_add(l->needs.workers, &l->job);
}

static void link_say_goodbye(struct sql_link *l)
{
    l->state = SQL_CLOSING;
    link_give_to_thread(l, link_close_work, link_on_disconnected);
}

static void link_on_poll_closed(uv_handle_t *handle)
{
    struct sql_link *l = handle->data;
    l->polls = false;
    (void)close(l->fd);
    link_say_goodbye(l);
}

static void link_end(struct sql_link *l)
{
    ASSERT(l->state == SQL_IDLE || l->state == SQL_BUSY);
    l->state = SQL_CLOSING;
    deadline_clear(&l->silence);
    deadline_clear(&l->statement_end);
    deadline_clear(&l->unused);
    uv_close((uv_handle_t *)&l->poll, link_on_poll_closed);
}

/* Whoever is connected and asked for nothing hears nothing, unless it is the end. */
static void link_on_idle_event(uv_poll_t *poll, int status, int events)
{
    struct sql_link *l = poll->data;
    (void)status;
    (void)events;
    (void)err_set(&l->err, ERR_UNAVAILABLE, "the server closed the connection");
    link_end(l);
}

/* From time to time a new connection is made: clocks drift, and names come to lead elsewhere. */
static void link_be_idle(struct sql_link *l)
{
    l->idle_ms = clock_mono_ms();
    if (l->idle_ms - l->connected_ms > (uint64_t)SQL_AGE_TIMES * l->needs.options->timeout_ms) {
        (void)err_set(&l->err, ERR_OK, "old");
        link_end(l);
        return;
    }
    deadline_set(l->needs.deadlines, SQL_CLASS_UNUSED, &l->unused);
    ASSERT(uv_poll_start(&l->poll, UV_READABLE | UV_DISCONNECT, link_on_idle_event) == 0);
    link_rest(l, SQL_IDLE);
}

/* The library closes its descriptor in the middle of a call, when it sees that the connection is
 * lost; the number is soon somebody else's, and whatever the loop does to it is done to him. So the
 * loop has a descriptor of its own. */
static bool link_poll(struct sql_link *l)
{
    l->fd = fcntl(mysql_get_socket(l->my), F_DUPFD_CLOEXEC, 0);
    if (l->fd < 0)
        return false;
    if (uv_poll_init(l->needs.loop, &l->poll, l->fd) != 0) {
        (void)close(l->fd);
        return false;
    }
    l->poll.data = l;
    l->polls = true;
    return true;
}

static void link_on_connected(struct work *w)
{
    struct sql_link *l = CONTAINER_OF(w, struct sql_link, job);
    l->is_refused = l->my == NULL;
    if (l->my == NULL) {
        link_rest(l, SQL_DOWN);
        return;
    }
    if (l->abandoned)
        return; /* just in time; sql_link_done() ends it */
    if (l->closing) {
        link_say_goodbye(l);
        return;
    }
    if (!link_poll(l)) {
        (void)err_set(&l->err, ERR_UNAVAILABLE, "there are no more descriptors");
        l->is_refused = true;
        link_say_goodbye(l);
        return;
    }
    l->is_new = true;
    l->connected_ms = clock_mono_ms();
    link_be_idle(l);
}

void sql_link_connect(struct sql_link *l)
{
    ASSERT(l->state == SQL_DOWN && !l->closing);
    l->state = SQL_CONNECTING;
    l->is_refused = false;
    link_give_to_thread(l, link_connect_work, link_on_connected);
}

void sql_link_drop(struct sql_link *l)
{
    ASSERT(l->state == SQL_IDLE);
    link_end(l);
}

bool sql_link_is_stale(const struct sql_link *l)
{
    return clock_mono_ms() - l->idle_ms > (uint64_t)SQL_UNUSED_TIMES * l->needs.options->timeout_ms;
}

uint64_t sql_link_server_us(const struct sql_link *l, uint64_t mono_ms)
{
    return (uint64_t)((int64_t)(mono_ms * 1000) + l->clock_us);
}

/* --- a statement ----------------------------------------------------------------------------- */

/* From `later`: never inside sql_link_start(). */
static void link_on_ended(struct later_item *item)
{
    struct sql_link *l = CONTAINER_OF(item, struct sql_link, ended);
    if (l->closing || l->dropping || l->outcome == SQL_LOST)
        link_end(l);
    else
        l->state = SQL_IDLE;
    l->done(l); /* may start the next one */
    if (l->state == SQL_IDLE)
        link_be_idle(l);
}

static void link_finish(struct sql_link *l, enum sql_outcome outcome)
{
    l->outcome = outcome;
    (void)uv_poll_stop(&l->poll);
    deadline_clear(&l->silence);
    deadline_clear(&l->statement_end);
    later_add(l->needs.later, &l->ended);
}

static void link_fail(struct sql_link *l)
{
    MYSQL_STMT *stmt = l->stmt[l->statement];
    unsigned number = mysql_stmt_errno(stmt);
    l->dropping = sql_outcome_drops(number);
    (void)err_set(&l->err, ERR_UNAVAILABLE, "%s", mysql_stmt_error(stmt));
    link_finish(l, sql_outcome_of(number));
}

/* Rows have been read: the rest waits for nobody. */
static enum sql_outcome link_take_value(struct sql_link *l, MYSQL_STMT *stmt)
{
    unsigned long len = 0;
    my_bool is_null = 0;
    MYSQL_BIND bind = {.buffer_type = MYSQL_TYPE_LONG_BLOB,
                       .length = &len,
                       .is_null = &is_null,
                       .buffer_length = 0};
    if (mysql_stmt_field_count(stmt) != 1 || mysql_stmt_bind_result(stmt, &bind) != 0)
        return SQL_LOST;
    int got = mysql_stmt_fetch(stmt);
    if (got == MYSQL_NO_DATA)
        return SQL_DONE;
    struct blob *value = NULL;
    if ((got == 0 || got == MYSQL_DATA_TRUNCATED) && !is_null && len <= STORE_VALUE_MAX)
        value = malloc(sizeof(*value) + len + 1); /* of a size that others chose */
    if (value == NULL)
        return SQL_TOO_LARGE;
    bind.buffer = value->bytes;
    bind.buffer_length = len;
    if (len > 0 && mysql_stmt_fetch_column(stmt, &bind, 0, 0) != 0) {
        free(value);
        return SQL_LOST;
    }
    value->refs = 1;
    value->len = len;
    value->bytes[len] = '\0';
    l->value = value;
    return SQL_DONE;
}

/* One key more was asked for than is wanted, to see whether there is one. */
static enum sql_outcome link_take_page(struct sql_link *l, MYSQL_STMT *stmt)
{
    char key[STORE_KEY_MAX + 1];
    unsigned long len = 0;
    uint64_t stamp = 0;
    MYSQL_BIND bind[] = {{.buffer_type = MYSQL_TYPE_STRING,
                          .buffer = key,
                          .buffer_length = STORE_KEY_MAX,
                          .length = &len},
                         {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &stamp, .is_unsigned = 1}};
    struct store_page *page = l->page;
    page->count = 0;
    page->next[0] = '\0';
    if (mysql_stmt_field_count(stmt) != ARRAY_LEN(bind) || mysql_stmt_bind_result(stmt, bind) != 0)
        return SQL_LOST;
    while (mysql_stmt_fetch(stmt) == 0) {
        if (page->count == page->limit) {
            store_page_cursor(page, page->count - 1, page->next);
            break;
        }
        if (!store_key_ok((struct slice){key, len}))
            continue; /* no key of ours */
        slice_copy((struct slice){key, len}, page->keys[page->count], sizeof(page->keys[0]));
        page->stamps[page->count++] = stamp;
    }
    return SQL_DONE;
}

static bool link_has_rows(const struct sql_link *l)
{
    return l->statement == SQL_GET || l->statement == SQL_LIST;
}

static void link_succeed(struct sql_link *l)
{
    MYSQL_STMT *stmt = l->stmt[l->statement];
    enum sql_outcome outcome = SQL_DONE;
    l->rows = mysql_stmt_affected_rows(stmt);
    if (l->statement == SQL_GET)
        outcome = link_take_value(l, stmt);
    else if (l->statement == SQL_LIST)
        outcome = link_take_page(l, stmt);
    if (outcome == SQL_LOST)
        (void)err_set(&l->err, ERR_UNAVAILABLE, "the library cannot read its own answer");
    else if (outcome != SQL_DONE)
        (void)err_set(&l->err, ERR_TOO_LARGE, "what is stored is too large to be read");
    if (link_has_rows(l))
        (void)mysql_stmt_free_result(stmt);
    link_finish(l, outcome);
}

/* OpenSSL has one list of errors for all connections of a thread, and takes what stands there for
 * the reason why a call came back. Connector/C 3.3 does not clear it before a call: after a server
 * has hung up on one connection, each other one would be lost as soon as it has to wait. */
static void link_forget_errors(void)
{
#ifdef STORE_MYSQL_OPENSSL
    ERR_clear_error();
#endif
}

static int link_continue(struct sql_link *l, int ready)
{
    MYSQL_STMT *stmt = l->stmt[l->statement];
    link_forget_errors();
    return l->storing ? mysql_stmt_store_result_cont(&l->failed, stmt, ready)
                      : mysql_stmt_execute_cont(&l->failed, stmt, ready);
}

/* POLLERR comes as a status, and the handle has stopped (libuv 1.44): the library finds out. */
static void link_on_event(uv_poll_t *poll, int status, int events)
{
    struct sql_link *l = poll->data;
    int ready = 0;
    if (status < 0 || (events & UV_READABLE) != 0)
        ready |= MYSQL_WAIT_READ;
    if (status < 0 || (events & UV_WRITABLE) != 0)
        ready |= MYSQL_WAIT_WRITE;
    deadline_set(l->needs.deadlines, SQL_CLASS_SILENCE, &l->silence);
    link_go_on(l, link_continue(l, ready));
}

/* `waits`: what the call just made waits for, 0 if it has ended. */
static void link_go_on(struct sql_link *l, int waits)
{
    MYSQL_STMT *stmt = l->stmt[l->statement];
    if (waits == 0 && l->failed == 0 && !l->storing && link_has_rows(l)) {
        l->storing = true;
        waits = mysql_stmt_store_result_start(&l->failed, stmt);
    }
    if (waits != 0) {
        int events = ((waits & MYSQL_WAIT_READ) != 0 ? UV_READABLE : 0) |
                     ((waits & MYSQL_WAIT_WRITE) != 0 ? UV_WRITABLE : 0);
        ASSERT(uv_poll_start(&l->poll, events, link_on_event) == 0);
    } else if (l->failed != 0) {
        link_fail(l);
    } else {
        link_succeed(l);
    }
}

void sql_link_start(struct sql_link *l, enum sql_statement statement,
                    const struct sql_param *params, unsigned count)
{
    MYSQL_BIND bind[SQL_PARAMS_MAX];
    MYSQL_STMT *stmt = l->stmt[statement];
    ASSERT(l->state == SQL_IDLE && !l->closing && count <= SQL_PARAMS_MAX);
    ASSERT(mysql_stmt_param_count(stmt) == count);
    memset(bind, 0, sizeof(bind));
    for (unsigned i = 0; i < count; i++) {
        const struct sql_param *param = &params[i];
        l->length[i] = param->text.len;
        l->number[i] = param->number;
        bind[i].length = &l->length[i];
        if (param->text.ptr != NULL) {
            bind[i].buffer_type = param->is_binary ? MYSQL_TYPE_LONG_BLOB : MYSQL_TYPE_STRING;
            bind[i].buffer = (void *)(uintptr_t)param->text.ptr;
            bind[i].buffer_length = param->text.len;
        } else {
            bind[i].buffer_type = MYSQL_TYPE_LONGLONG;
            bind[i].buffer = &l->number[i];
            bind[i].is_unsigned = 1;
        }
    }
    l->state = SQL_BUSY;
    l->statement = statement;
    l->storing = l->dropping = l->is_new = false;
    l->value = NULL;
    deadline_clear(&l->unused);
    deadline_set(l->needs.deadlines, SQL_CLASS_SILENCE, &l->silence);
    deadline_set(l->needs.deadlines, SQL_CLASS_STATEMENT, &l->statement_end);
    link_forget_errors();
    if (mysql_stmt_bind_param(stmt, bind) != 0)
        link_fail(l);
    else
        link_go_on(l, mysql_stmt_execute_start(&l->failed, stmt));
}

/* --- the end --------------------------------------------------------------------------------- */

/* The library notices, and ends its call in good order. */
static void link_cut(struct sql_link *l)
{
    (void)shutdown(l->fd, SHUT_RDWR);
}

static void link_on_silence(struct deadline *d)
{
    link_cut(CONTAINER_OF(d, struct sql_link, silence));
}

static void link_on_statement_over(struct deadline *d)
{
    link_cut(CONTAINER_OF(d, struct sql_link, statement_end));
}

static void link_on_unused(struct deadline *d)
{
    struct sql_link *l = CONTAINER_OF(d, struct sql_link, unused);
    (void)err_set(&l->err, ERR_OK, "not used");
    link_end(l);
}

void sql_link_classes(struct deadline_class classes[SQL_CLASSES], unsigned timeout_ms)
{
    classes[SQL_CLASS_SILENCE] = (struct deadline_class){.ms = timeout_ms, .over = link_on_silence};
    classes[SQL_CLASS_STATEMENT] = (struct deadline_class){
        .ms = (uint64_t)SQL_STATEMENT_TIMES * timeout_ms, .over = link_on_statement_over};
    classes[SQL_CLASS_UNUSED] = (struct deadline_class){
        .ms = (uint64_t)SQL_UNUSED_TIMES * timeout_ms, .over = link_on_unused};
}

void sql_link_init(struct sql_link *l, const struct sql_link_needs *needs)
{
    l->state = SQL_DOWN;
    l->needs = *needs;
    deadline_init(&l->silence);
    deadline_init(&l->statement_end);
    deadline_init(&l->unused);
    later_item_init(&l->ended, link_on_ended);
}

void sql_link_close(struct sql_link *l, void (*closed)(struct sql_link *l))
{
    ASSERT(!l->closing);
    l->closing = true;
    l->closed = closed;
    if (l->state == SQL_DOWN)
        l->closed(l);
    else if (l->state == SQL_IDLE)
        link_end(l);
    else if (l->state == SQL_BUSY)
        link_cut(l);
}

bool sql_link_is_on_loop(const struct sql_link *l)
{
    return l->state == SQL_BUSY || l->polls;
}

void sql_link_abandon(struct sql_link *l)
{
    ASSERT(l->closing && !sql_link_is_on_loop(l));
    l->abandoned = true;
}

void sql_link_done(struct sql_link *l)
{
    sql_close_work(l);
}
