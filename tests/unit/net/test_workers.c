/* Jobs on threads: each done once, on the loop; never more threads than allowed; and an end of the
 * wait for those that hang. */
#include "loop_fixture.h"
#include "unit.h"
#include "workers.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum { LONG_MS = 60000 };

struct job {
    struct work work;
    unsigned done;
    bool on_loop;
    pthread_t ran_on;
    unsigned rests_before, rests_told; /* when it ran, when it was done */
    bool blocks_signals;
};

static pthread_t loop_thread;
static atomic_uint at_once, at_once_max;
static atomic_bool hold;
static atomic_uint rests, rests_on_loop;
static unsigned all_done, all_dropped, order_fault;
static bool closed;
static unsigned stuck;

static void job_run(struct work *w)
{
    struct job *job = CONTAINER_OF(w, struct job, work);
    sigset_t set;
    unsigned now = atomic_fetch_add(&at_once, 1) + 1;
    unsigned max = atomic_load(&at_once_max);
    while (now > max && !atomic_compare_exchange_weak(&at_once_max, &max, now))
        ;
    while (atomic_load(&hold))
        (void)usleep(500);
    job->ran_on = pthread_self();
    job->rests_before = atomic_load(&rests);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &set);
    job->blocks_signals = sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGCHLD) == 1;
    (void)atomic_fetch_sub(&at_once, 1);
}

static void job_done(struct work *w)
{
    struct job *job = CONTAINER_OF(w, struct job, work);
    job->done++;
    job->rests_told = atomic_load(&rests);
    job->on_loop = pthread_equal(loop_thread, pthread_self()) != 0;
    all_done++;
}

static void rest(void)
{
    (void)atomic_fetch_add(&rests, 1);
    (void)atomic_fetch_add(&rests_on_loop, pthread_equal(loop_thread, pthread_self()) != 0);
}

static void job_dropped(struct work *w)
{
    struct job *job = CONTAINER_OF(w, struct job, work);
    assert_true(pthread_equal(loop_thread, pthread_self()));
    assert_int_equal(job->done, 0);
    all_dropped++;
}

static void job_init(struct job *job)
{
    *job = (struct job){.work = {.run = job_run, .done = job_done, .dropped = job_dropped}};
}

static void on_closed(void *ctx, unsigned n)
{
    assert_ptr_equal(ctx, &closed);
    assert_false(closed);
    closed = true;
    stuck = n;
}

static int set_up(void **state)
{
    static struct loop_fixture f;
    loop_thread = pthread_self();
    atomic_store(&at_once, 0);
    atomic_store(&at_once_max, 0);
    atomic_store(&hold, false);
    atomic_store(&rests, 0);
    atomic_store(&rests_on_loop, 0);
    all_done = 0;
    all_dropped = 0;
    order_fault = 0;
    closed = false;
    stuck = 0;
    loop_fixture_open(&f);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    loop_fixture_close(*state);
    return 0;
}

static void close_and_wait(struct loop_fixture *f, struct workers *ws, uint64_t wait_ms)
{
    workers_close(ws, wait_ms, on_closed, &closed);
    assert_false(closed);
    loop_run_until(f, &closed, "the end of the workers");
}

static void without_a_job_there_is_no_thread_to_wait_for(void **state)
{
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 8);
    close_and_wait(*state, ws, LONG_MS);
    assert_int_equal(stuck, 0);
}

static void each_job_is_done_once_on_the_loop(void **state)
{
    static struct job jobs[500];
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 3);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        job_init(&jobs[i]);
        workers_add(ws, &jobs[i].work);
    }
    assert_int_equal(workers_pending(ws), ARRAY_LEN(jobs));
    close_and_wait(*state, ws, LONG_MS); /* queued jobs are waited for, too */
    assert_int_equal(stuck, 0);
    assert_int_equal(all_done, ARRAY_LEN(jobs));
    assert_true(atomic_load(&at_once_max) <= 3);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        assert_int_equal(jobs[i].done, 1);
        assert_true(jobs[i].on_loop);
        assert_false(pthread_equal(jobs[i].ran_on, loop_thread));
        assert_true(jobs[i].blocks_signals);
    }
}

static void threads_are_used_side_by_side(void **state)
{
    struct job jobs[4];
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 3);
    atomic_store(&hold, true);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        job_init(&jobs[i]);
        workers_add(ws, &jobs[i].work);
    }
    while (atomic_load(&at_once) < 3)
        (void)usleep(500);
    atomic_store(&hold, false);
    close_and_wait(*state, ws, LONG_MS);
    assert_int_equal(all_done, 4);
    assert_int_equal(atomic_load(&at_once_max), 3);
}

static void a_thread_rests_after_the_last_job_before_that_is_told(void **state)
{
    static struct job jobs[3];
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 1);
    workers_on_rest(ws, rest);
    atomic_store(&hold, true);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        job_init(&jobs[i]);
        workers_add(ws, &jobs[i].work);
    }
    atomic_store(&hold, false);
    close_and_wait(*state, ws, LONG_MS);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++)
        assert_int_equal(jobs[i].rests_before, 0);
    assert_true(jobs[2].rests_told >= 1);
    assert_int_equal(atomic_load(&rests_on_loop), 0);
}

static void order_done(struct work *w)
{
    struct job *job = CONTAINER_OF(w, struct job, work);
    static unsigned next;
    order_fault += job->done != next; /* `done` holds the number */
    next++;
    all_done++;
}

static void one_thread_keeps_the_order(void **state)
{
    static struct job jobs[100];
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 1);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        job_init(&jobs[i]);
        jobs[i].work.done = order_done;
        jobs[i].done = i;
        workers_add(ws, &jobs[i].work);
    }
    close_and_wait(*state, ws, LONG_MS);
    assert_int_equal(all_done, ARRAY_LEN(jobs));
    assert_int_equal(order_fault, 0);
}

static struct workers *workers_of_test;
static struct job second;

static void done_that_adds(struct work *w)
{
    job_done(w);
    job_init(&second);
    workers_add(workers_of_test, &second.work);
}

static void done_that_closes(struct work *w)
{
    job_done(w);
    workers_close(workers_of_test, LONG_MS, on_closed, &closed);
    assert_false(closed);
}

static void a_job_can_be_added_inside_done(void **state)
{
    struct loop_fixture *f = *state;
    struct job job;
    workers_of_test = workers_new(&f->loop, 1);
    job_init(&job);
    job.work.done = done_that_adds;
    workers_add(workers_of_test, &job.work);
    while (all_done < 2)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(workers_pending(workers_of_test), 0);
    close_and_wait(f, workers_of_test, LONG_MS);
}

static void they_can_be_closed_inside_done(void **state)
{
    struct loop_fixture *f = *state;
    struct job job;
    workers_of_test = workers_new(&f->loop, 2);
    job_init(&job);
    job.work.done = done_that_closes;
    workers_add(workers_of_test, &job.work);
    loop_run_until(f, &closed, "the end of the workers");
    assert_int_equal(stuck, 0);
}

/* As on a dead mount. */
static void stuck_jobs_are_abandoned_after_the_wait(void **state)
{
    static struct job jobs[3];
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 2);
    workers_on_rest(ws, rest);
    atomic_store(&hold, true);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        job_init(&jobs[i]);
        workers_add(ws, &jobs[i].work);
    }
    while (atomic_load(&at_once) < 2)
        (void)usleep(500);
    close_and_wait(*state, ws, 20);
    assert_int_equal(stuck, 3);       /* two that hang and one that had no turn, */
    assert_int_equal(all_dropped, 1); /* whose owner learns that nobody will touch it */
}

/* The linker puts this in the place of uv_thread_create(). */
static unsigned refusals;

int __real_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg);
int __wrap_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg);

int __wrap_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg)
{
    if (refusals > 0) {
        refusals--;
        return UV_EAGAIN;
    }
    return __real_uv_thread_create(thread, entry, arg);
}

static void a_thread_that_was_refused_is_asked_for_again(void **state)
{
    static struct job job;
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 1);
    job_init(&job);
    refusals = 2;
    workers_add(ws, &job.work); /* no other follows before this one is done */
    loop_run_until(*state, &job.on_loop, "the job");
    close_and_wait(*state, ws, LONG_MS);
    assert_int_equal(stuck, 0);
}

static void a_close_does_not_wait_for_ever_for_a_thread(void **state)
{
    static struct job job;
    struct workers *ws = workers_new(&((struct loop_fixture *)*state)->loop, 1);
    job_init(&job);
    refusals = UINT_MAX;
    workers_add(ws, &job.work);
    close_and_wait(*state, ws, 20);
    refusals = 0;
    assert_int_equal(stuck, 1);
    assert_int_equal(all_dropped, 1);
}

/* Both come back when there is not even a loop any more, and must find nothing to touch. */
static int tear_down_and_let_go(void **state)
{
    loop_fixture_close(*state);
    atomic_store(&hold, false);
    while (atomic_load(&at_once) > 0)
        (void)usleep(500);
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (atomic_load(&rests) < 2 && clock_mono_ms() < end)
        (void)usleep(500);
    (void)usleep(20000);
    assert_true(atomic_load(&rests) >= 2); /* and leave nothing of theirs */
    assert_int_equal(all_done, 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_a_job_there_is_no_thread_to_wait_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(each_job_is_done_once_on_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_are_used_side_by_side, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_thread_keeps_the_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_thread_rests_after_the_last_job_before_that_is_told,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_job_can_be_added_inside_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(they_can_be_closed_inside_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_thread_that_was_refused_is_asked_for_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_close_does_not_wait_for_ever_for_a_thread, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(stuck_jobs_are_abandoned_after_the_wait, set_up,
                                        tear_down_and_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
