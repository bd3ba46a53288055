/* threads.c: how many threads, and when only one. */
#include "fastdrop.h"

#include <stdatomic.h>

#if !defined(_WIN32)
#include <pthread.h>
#endif

static atomic_int configured_threads = 1;
static atomic_int pool_used = 0;      /* a parallel region has run in this process */
static atomic_int pool_lost = 0;      /* forked from a process whose pool was in use */

int fd_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int fd_get_num_threads(void)
{
    return configured_threads;
}

void fd_set_num_threads(int threads)
{
    configured_threads = threads < 1 ? 1 : threads;
}

#if !defined(_WIN32) && defined(_OPENMP)
/* fork() copies the calling thread only. libgomp would wait for ever for the pool threads that the
 * child does not have, so a child of a process that used them stays single-threaded. */
static void after_fork_in_child(void)
{
    if (pool_used) {
        pool_lost = 1;
    }
}

__attribute__((constructor)) static void register_fork_handler(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}
#endif

int fd_threads_for(int64_t work, int64_t minimum)
{
#ifdef _OPENMP
    int threads = configured_threads;
    if (threads <= 1 || work < 2 * minimum || pool_lost) {
        return 1;
    }
    if (work / minimum < threads) {
        threads = (int)(work / minimum);
    }
    pool_used = 1;
    return threads;
#else
    (void)work;
    (void)minimum;
    return 1;
#endif
}

void fd_parallel(int threads, int64_t tasks, fd_task run, const void *context)
{
    if (threads <= 1) { /* an OpenMP region costs half a microsecond even on one thread */
        for (int64_t task = 0; task < tasks; task++) {
            run(context, task);
        }
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        run(context, task);
    }
#endif
}
