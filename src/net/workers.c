/* Threads for work that may hang.
 *
 *     loop thread        mutex          worker threads
 *     workers_add() ──► queued ──────► run()
 *     done()        ◄── finished ◄──── (uv_async_send)
 *
 * A thread is made when a job finds none idle, up to the limit, and stays until the close. Threads
 * tell the loop with one uv_async_t; every send happens under the mutex and not once the threads
 * have been abandoned, so the handle is never touched after it was closed.
 *
 * Closing is a wait with an end: threads leave when the queue is empty, the last one to leave wakes
 * the loop, which joins them. A thread that is stuck in the system beyond the wait cannot be
 * stopped by anybody: it is detached, and this struct then lives until it has come back, if ever.
 * Whoever is last out, loop or thread, frees.
 */
#include "workers.h"

#include "closer.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    WORKERS_THREADS_MAX = 8,
    WORKERS_AGAIN_MS = 50, /* until the system is asked again for a thread that it did not give */
};

struct workers {
    /* the loop thread's */
    struct closer closer;
    uv_async_t wake;
    uv_timer_t timer; /* until the next try for a first thread; closing: the patience */
    uv_thread_t thread[WORKERS_THREADS_MAX];
    unsigned threads, threads_max;
    unsigned pending;
    bool ending; /* handles are being closed */
    unsigned stuck;
    void (*closed)(void *ctx, unsigned stuck);
    void *closed_ctx;

    void (*rest)(void); /* set before there are threads */

    uv_mutex_t mutex; /* guards what follows */
    uv_cond_t news;
    struct list_node queued, finished;
    unsigned queued_count;
    unsigned idle;  /* threads that wait for a job */
    unsigned users; /* threads that have not left, and the loop */
    bool stopping, abandoned;
};

/* --- on the worker threads ------------------------------------------------------------------- */

static void workers_free(struct workers *ws)
{
    uv_cond_destroy(&ws->news);
    uv_mutex_destroy(&ws->mutex);
    free(ws);
}

/* With the mutex held, which it releases. */
static void workers_leave(struct workers *ws)
{
    bool last = --ws->users == 0;
    if (!ws->abandoned)
        (void)uv_async_send(&ws->wake);
    uv_mutex_unlock(&ws->mutex);
    if (last)
        workers_free(ws);
}

/* With the mutex held, which it lets go meanwhile. */
static void workers_rest(struct workers *ws)
{
    if (ws->rest == NULL)
        return;
    uv_mutex_unlock(&ws->mutex);
    ws->rest();
    uv_mutex_lock(&ws->mutex);
}

static void workers_main(void *arg)
{
    struct workers *ws = arg;
    uv_mutex_lock(&ws->mutex);
    for (;;) {
        while (list_is_empty(&ws->queued) && !ws->stopping) {
            ws->idle++;
            uv_cond_wait(&ws->news, &ws->mutex);
            ws->idle--;
        }
        if (list_is_empty(&ws->queued) || ws->abandoned)
            break;
        struct work *w = CONTAINER_OF(ws->queued.next, struct work, link);
        list_remove(&w->link);
        ws->queued_count--;
        uv_mutex_unlock(&ws->mutex);
        w->run(w);
        uv_mutex_lock(&ws->mutex);
        if (list_is_empty(&ws->queued))
            workers_rest(ws);
        if (ws->abandoned)
            break; /* nobody waits for this job any more */
        list_add(&ws->finished, &w->link);
        (void)uv_async_send(&ws->wake);
    }
    workers_leave(ws);
}

/* --- on the loop thread ---------------------------------------------------------------------- */

/* Delivers what is finished; returns how many threads have not left. */
static unsigned workers_deliver(struct workers *ws)
{
    struct list_node finished;
    uv_mutex_lock(&ws->mutex);
    list_take(&finished, &ws->finished);
    unsigned threads = ws->users - 1;
    uv_mutex_unlock(&ws->mutex);
    while (!list_is_empty(&finished)) {
        struct work *w = CONTAINER_OF(finished.next, struct work, link);
        list_remove(&w->link);
        ws->pending--;
        w->done(w); /* may free w, add others, close us */
    }
    return threads;
}

static void workers_on_closed(struct closer *c)
{
    struct workers *ws = CONTAINER_OF(c, struct workers, closer);
    void (*closed)(void *ctx, unsigned stuck) = ws->closed;
    void *ctx = ws->closed_ctx;
    unsigned stuck = ws->stuck;
    uv_mutex_lock(&ws->mutex);
    bool last = --ws->users == 0;
    uv_mutex_unlock(&ws->mutex);
    if (last)
        workers_free(ws);
    if (closed != NULL)
        closed(ctx, stuck);
}

static void workers_on_handle_closed(uv_handle_t *handle)
{
    struct workers *ws = handle->data;
    closer_release(&ws->closer);
}

static void workers_end(struct workers *ws)
{
    ws->ending = true;
    uv_close((uv_handle_t *)&ws->wake, workers_on_handle_closed);
    uv_close((uv_handle_t *)&ws->timer, workers_on_handle_closed);
    closer_begin(&ws->closer, workers_on_closed);
}

static void workers_join(struct workers *ws)
{
    for (unsigned i = 0; i < ws->threads; i++)
        ASSERT(uv_thread_join(&ws->thread[i]) == 0);
    ws->threads = 0;
    workers_end(ws);
}

static void workers_on_wake(uv_async_t *wake)
{
    struct workers *ws = wake->data;
    unsigned threads = workers_deliver(ws);
    if (ws->stopping && !ws->ending && threads == 0)
        workers_join(ws);
}

static void workers_drop(struct list_node *queued)
{
    while (!list_is_empty(queued)) {
        struct work *w = CONTAINER_OF(queued->next, struct work, link);
        list_remove(&w->link);
        if (w->dropped != NULL)
            w->dropped(w);
    }
}

static void workers_on_patience_over(uv_timer_t *timer)
{
    struct workers *ws = timer->data;
    struct list_node queued;
    uv_mutex_lock(&ws->mutex);
    ws->abandoned = true;
    list_take(&queued, &ws->queued);
    uv_cond_broadcast(&ws->news);
    uv_mutex_unlock(&ws->mutex);
    (void)workers_deliver(ws); /* what was ready just in time */
    ws->stuck = ws->pending;
    workers_drop(&queued);
    for (unsigned i = 0; i < ws->threads; i++)
        ASSERT(pthread_detach(ws->thread[i]) == 0);
    workers_end(ws);
}

struct workers *workers_new(uv_loop_t *loop, unsigned threads)
{
    ASSERT(threads >= 1 && threads <= WORKERS_THREADS_MAX);
    struct workers *ws = xcalloc(1, sizeof(*ws));
    ws->threads_max = threads;
    ws->users = 1;
    list_init(&ws->queued);
    list_init(&ws->finished);
    ASSERT(uv_mutex_init(&ws->mutex) == 0);
    ASSERT(uv_cond_init(&ws->news) == 0);
    closer_init(&ws->closer, loop);
    ASSERT(uv_async_init(loop, &ws->wake, workers_on_wake) == 0);
    ws->wake.data = ws;
    closer_hold(&ws->closer);
    ASSERT(uv_timer_init(loop, &ws->timer) == 0);
    ws->timer.data = ws;
    closer_hold(&ws->closer);
    return ws;
}

static void workers_on_again(uv_timer_t *timer);

/* Signals are the loop thread's business. When the system gives no thread, the job waits for one
 * that is there. Where there is none we ask again: who has added the job may add no other before
 * this one is done. */
static void workers_start_thread(struct workers *ws)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    ASSERT(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    uv_mutex_lock(&ws->mutex);
    if (uv_thread_create(&ws->thread[ws->threads], workers_main, ws) == 0) {
        ws->threads++;
        ws->users++;
    }
    uv_mutex_unlock(&ws->mutex);
    ASSERT(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (ws->threads == 0)
        ASSERT(uv_timer_start(&ws->timer, workers_on_again, WORKERS_AGAIN_MS, 0) == 0);
}

static void workers_on_again(uv_timer_t *timer)
{
    struct workers *ws = timer->data;
    if (ws->threads == 0)
        workers_start_thread(ws);
}

void workers_on_rest(struct workers *ws, void (*rest)(void))
{
    ASSERT(ws->threads == 0 && ws->pending == 0);
    ws->rest = rest;
}

void workers_add(struct workers *ws, struct work *w)
{
    ASSERT(!ws->stopping);
    ws->pending++;
    uv_mutex_lock(&ws->mutex);
    list_add(&ws->queued, &w->link);
    bool want_thread = ++ws->queued_count > ws->idle && ws->threads < ws->threads_max;
    uv_mutex_unlock(&ws->mutex);
    uv_cond_signal(&ws->news); /* with the mutex held it would wake only to wait for that */
    if (want_thread)
        workers_start_thread(ws);
}

unsigned workers_pending(const struct workers *ws)
{
    return ws->pending;
}

void workers_close(struct workers *ws, uint64_t wait_ms, void (*closed)(void *ctx, unsigned stuck),
                   void *ctx)
{
    ASSERT(!ws->stopping);
    ws->closed = closed;
    ws->closed_ctx = ctx;
    uv_mutex_lock(&ws->mutex);
    ws->stopping = true; /* written by this thread only, which may read it without the mutex */
    unsigned threads = ws->users - 1;
    uv_cond_broadcast(&ws->news);
    uv_mutex_unlock(&ws->mutex);
    if (threads == 0 && ws->pending == 0)
        workers_join(ws);
    else
        ASSERT(uv_timer_start(&ws->timer, workers_on_patience_over, wait_ms, 0) == 0);
}
