/* many_threads.c: threads that call the library at the same time, and processes forked from them.
 *
 * Each thread has arrays of its own and knows what has to be in them; they are plain memory, so
 * ThreadSanitizer (.ci/sanitize thread) sees every access that nothing orders. What the threads share
 * is what the library keeps: the pool, the number of threads, the instruction set.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fastdrop.h"

#define CALLERS 4
#define LARGEST_MASK 300000 /* elements */
#define JOBS 1500
#define MOST_TASKS 40
#define FORKS 12
#define JOBS_AFTER_FORK 60
#define LONGEST_CHILD 100 /* seconds, also under a sanitizer */

int __wrap_fd_threads_for(int64_t work, int64_t minimum);

/* Every build links with --wrap=fd_threads_for: threads for however little work, so that small
 * arrays are shared among them, too. */
int __wrap_fd_threads_for(int64_t work, int64_t minimum)
{
    const int threads = fd_get_num_threads();
    (void)minimum;
    return work < threads ? (int)(work > 1 ? work : 1) : threads;
}

/* What one call of fd_parallel reads and writes. */
typedef struct {
    pthread_t caller;
    int64_t input;
    int64_t results[MOST_TASKS];
    int slow; /* tasks sleep, so that a worker has time to come */
    atomic_long *helped;
} shared_job;

static void pause_for(long microseconds)
{
    const struct timespec time = {0, microseconds * 1000};
    nanosleep(&time, NULL);
}

static void add_input(const void *context, int64_t task)
{
    shared_job *job = (shared_job *)context;
    if (job->slow) {
        pause_for(20);
    }
    job->results[task] += job->input * (task + 1);
    if (!pthread_equal(job->caller, pthread_self())) {
        atomic_fetch_add_explicit(job->helped, 1, memory_order_relaxed);
    }
}

static uint32_t next_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* Jobs of all sizes and thread counts, some while the workers look for one, some while they sleep;
 * each has to be complete, and finished, when the call returns. Returns how many tasks workers did. */
static long run_jobs(int jobs, uint32_t seed)
{
    atomic_long helped = 0;
    shared_job job = {.caller = pthread_self(), .helped = &helped};
    for (int i = 0; i < jobs; i++) {
        const int64_t tasks = next_number(&seed) % (MOST_TASKS + 1);
        job.input = next_number(&seed);
        job.slow = next_number(&seed) % 16 == 0;
        for (int task = 0; task < MOST_TASKS; task++) {
            job.results[task] = i;
        }
        fd_parallel(1 + (int)(next_number(&seed) % 6), tasks, add_input, &job);
        for (int task = 0; task < MOST_TASKS; task++) {
            const int64_t expected = i + (task < tasks ? job.input * (task + 1) : 0);
            if (job.results[task] != expected) {
                fail("task %d of %" PRId64 " left %" PRId64 " instead of %" PRId64, task, tasks,
                     job.results[task], expected);
            }
        }
        if (next_number(&seed) % 16 == 0) {
            pause_for(100); /* longer than a worker looks for a job */
        }
    }
    return helped;
}

typedef struct {
    pthread_t thread;
    uint32_t number;
    long result;
    const char *masks;
} caller;

static void *call_pool(void *argument)
{
    caller *c = argument;
    c->result = run_jobs(JOBS, c->number);
    return NULL;
}

/* What same_bits checks, while the number of threads and the instruction set change. */
static void *call_kernels(void *argument)
{
    caller *c = argument;
    const int levels = fd_level_count();
    c->result = 0;
    for (int round = 0; round < levels; round++) {
        fd_set_num_threads(1 + (int)(c->number + (uint32_t)round) % 4);
        fd_select_level((int)(c->number + (uint32_t)round) % levels); /* if this machine has it */
        c->result += check_golden_masks(c->masks, LARGEST_MASK);
        c->result += check_exact_values();
    }
    return NULL;
}

static void start(caller *callers, int count, void *(*run)(void *), const char *masks)
{
    for (int i = 0; i < count; i++) {
        callers[i].number = (uint32_t)i;
        callers[i].masks = masks;
        if (pthread_create(&callers[i].thread, NULL, run, &callers[i]) != 0) {
            fail("no thread");
        }
    }
}

static long finish(caller *callers, int count)
{
    long sum = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(callers[i].thread, NULL);
        sum += callers[i].result;
    }
    return sum;
}

/* A child has the pool at once, whatever its parent's threads were doing with theirs. */
static void fork_and_run(uint32_t seed)
{
    const pid_t child = fork();
    if (child == 0) {
        alarm(LONGEST_CHILD); /* one that waits for workers that it does not have */
        const long helped = run_jobs(JOBS_AFTER_FORK, seed);
        _exit(helped > 0 || !fd_has_threads() ? 0 : 3);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        fail("no process");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fail("a forked process ended with status %d", status);
    }
}

void check_many_threads(const char *masks)
{
    caller callers[CALLERS];
    setvbuf(stdout, NULL, _IOLBF, 0); /* nothing is printed again by a forked process */
    for (int count = 1; count <= CALLERS; count *= 2) {
        start(callers, count, call_pool, masks);
        const long helped = finish(callers, count);
        if (helped == 0 && fd_has_threads()) {
            fail("no worker had any of the tasks of %d callers", count);
        }
        printf("%d callers: %d jobs each, %ld tasks done by workers\n", count, JOBS, helped);
    }
    start(callers, CALLERS, call_pool, masks);
    for (int i = 0; i < FORKS; i++) {
        fork_and_run((uint32_t)(CALLERS + i));
    }
    finish(callers, CALLERS);
    printf("%d processes forked in between: as they should be\n", FORKS);
    start(callers, CALLERS, call_kernels, masks);
    const long results = finish(callers, CALLERS);
    printf("%d callers of kernels: %ld results as they should be\n", CALLERS, results);
}
