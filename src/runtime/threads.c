/* threads.c: a small pool of threads that never has to be waited for.
 *
 * Each thread has a share of the tasks, and the same one the next time: what it wrote then lies in its core's
 * cache. Once through with its own it claims what is left of the others', one task at a time; so the calling
 * thread does everything itself where no worker is awake in time. The call ends when every claimed task is
 * done: a worker that the system did not run (other libraries' threads, such as a BLAS's spinning ones, keep
 * its core busy) costs nothing. A barrier for the whole team, as OpenMP has it, waits for such a worker a time
 * slice of the system: milliseconds, for tasks that take microseconds.
 *
 * One call at a time has the pool; others, from other threads, do their tasks themselves. Workers that no
 * call is using end before a fork, as it copies one thread only. Parent and child make new ones when needed.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "fastdrop.h"

#define MOST_WORKERS 255
/* How long a worker looks for a new job before it goes to sleep. Between the products of a step there are
 * 10 to 50 us of Python, and waking takes as long as a product of 32 x 1024 x 1024 on one of two threads;
 * a longer BLAS call in between finds the core free again. By the clock, as a pause takes 40 cycles on
 * one processor and 140 on another; that is looked at once in LOOKS_PER_CLOCK looks.
 *
 * A worker never yields while it looks. Linux, from 6.12 on, takes a yield as giving up the rest of
 * the time slice, milliseconds of it: a worker that yielded beside a BLAS's spinning thread got 7 %
 * of the core when it had work to do. One that sleeps and is woken has not spent its share, and
 * takes the core from the spinning thread at once. */
#define LOOK_NANOSECONDS 100000
#define LOOKS_PER_CLOCK 64
/* The caller, waiting for the last tasks, offers its core now and then: a worker may need it. */
#define LOOKS_BEFORE_YIELD 1000

#if defined(__x86_64__)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() sched_yield()
#endif

typedef struct {
    fd_task run;
    const void *context;
    int64_t tasks;
    int threads;            /* shares: number s is tasks s, s + threads, s + 2 * threads ... */
    atomic_int places_left; /* workers that may still join */
} job;

/* How many tasks of a share are claimed; alone on a line of the cache. */
typedef struct {
    _Alignas(64) _Atomic int64_t claimed;
} share;

static atomic_int configured_threads = 1;

static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER; /* of the pool, for one call */
static pthread_mutex_t bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static job current;
static share shares[MOST_WORKERS + 1];
static atomic_uint generation; /* number of the latest job */
static atomic_uint open_job;   /* the same while workers may join it, else 0 */
static atomic_int inside;      /* workers that may be looking at `current` */
static atomic_int workers, sleepers, numbered;
static atomic_int ending;                  /* whether the latest job is to end */
static pthread_t worker_ids[MOST_WORKERS]; /* of the first `workers` */
static atomic_int caller_core = -1;        /* that the latest job was published from */

int fd_has_threads(void)
{
#ifdef FASTDROP_NO_THREADS
    return 0;
#else
    return 1;
#endif
}

int fd_get_num_threads(void) { return fd_has_threads() ? configured_threads : 1; }

/* The one symbol that others see: threadpoolctl knows the compiled module by it. */
__attribute__((visibility("default"))) int fastdrop_get_num_threads(void);

int fastdrop_get_num_threads(void) { return fd_get_num_threads(); }

void fd_set_num_threads(int threads) { configured_threads = threads < 1 ? 1 : threads; }

int fd_threads_for(int64_t work, int64_t minimum)
{
    const int threads = fd_get_num_threads();
    if (threads <= 1 || work < 2 * minimum) {
        return 1;
    }
    return work / minimum < threads ? (int)(work / minimum) : threads;
}

static void work_on(const job *j, int own)
{
    for (int i = 0; i < j->threads; i++) {
        const int s = (own + i) % j->threads;
        const int64_t last = (j->tasks - 1 - s) / j->threads;
        /* To look costs many threads less than to claim what is not there. */
        while (atomic_load_explicit(&shares[s].claimed, memory_order_relaxed) <= last) {
            const int64_t n =
                atomic_fetch_add_explicit(&shares[s].claimed, 1, memory_order_relaxed);
            if (n <= last) {
                j->run(j->context, s + n * j->threads);
            }
        }
    }
}

/* A sleeping worker. */
typedef struct place place;

#if defined(__linux__)
/* The system likes to wake a thread on its waker's core, where the two take turns until the load is
 * balanced, which may be after the job. So a worker sleeps with an affinity that leaves out the core
 * of the last caller, and has its own back when it wakes. A caller on another core than that changes
 * it before it wakes the worker: of two cores, the one left would be its own. */
struct place {
    place *next;
    pid_t thread;
    cpu_set_t own, asleep; /* its affinity when it lay down, and the one given to it since */
    int avoided;           /* core, or -1 */
};

/* Whether nobody else has given it another affinity meanwhile. */
static int is_as_left(const place *p)
{
    cpu_set_t now;
    return sched_getaffinity(p->thread, sizeof now, &now) == 0 && CPU_EQUAL(&now, &p->asleep);
}

static void avoid(place *p, int core)
{
    if (core == p->avoided || core < 0 || core >= CPU_SETSIZE) {
        return;
    }
    cpu_set_t others = p->own;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) > 0 && is_as_left(p) &&
        sched_setaffinity(p->thread, sizeof others, &others) == 0) {
        p->asleep = others;
        p->avoided = core;
    }
}

static void lie_down(place *p)
{
    p->thread = (pid_t)syscall(SYS_gettid);
    p->avoided = -1;
    if (sched_getaffinity(0, sizeof p->own, &p->own) != 0) {
        CPU_ZERO(&p->own); /* no core is left to choose */
    }
    p->asleep = p->own;
    avoid(p, caller_core);
}

static void get_up(const place *p)
{
    if (p->avoided >= 0 && is_as_left(p)) {
        sched_setaffinity(p->thread, sizeof p->own, &p->own);
    }
}

static int own_core(void) { return sched_getcpu(); }
#else
struct place {
    place *next;
};

static void avoid(place *p, int core)
{
    (void)p;
    (void)core;
}

static void lie_down(place *p) { (void)p; }

static void get_up(const place *p) { (void)p; }

static int own_core(void) { return -1; }
#endif

static place *sleeping; /* a list; changed by who has the bed's lock */

static void take_out(const place *p)
{
    place **link = &sleeping;
    while (*link != p) {
        link = &(*link)->next;
    }
    *link = p->next;
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static unsigned wait_for_job(unsigned seen)
{
    for (const int64_t begin = nanoseconds(); nanoseconds() - begin < LOOK_NANOSECONDS;) {
        for (int look = 0; look < LOOKS_PER_CLOCK; look++) {
            const unsigned now = generation;
            if (now != seen) {
                return now;
            }
            relax();
        }
    }
    place p;
    lie_down(&p);
    pthread_mutex_lock(&bed);
    p.next = sleeping;
    sleeping = &p;
    sleepers++;
    while (generation == seen) {
        pthread_cond_wait(&wake, &bed);
    }
    sleepers--;
    take_out(&p);
    pthread_mutex_unlock(&bed);
    get_up(&p);
    return generation;
}

static void *worker(void *first)
{
    unsigned seen = (unsigned)(uintptr_t)first;
    const int number = ++numbered;
    for (;;) {
        seen = wait_for_job(seen);
        if (ending) {
            return NULL;
        }
        /* Announced before looking whether the job is open; the caller closes it before it looks
         * who is inside. So either the worker finds it closed or the caller waits for it. */
        inside++;
        if (open_job == seen && atomic_fetch_sub(&current.places_left, 1) > 0) {
            work_on(&current, number % current.threads);
        }
        inside--;
    }
}

/* Has at least `count` workers, if the system allows it. */
static void hire(int count)
{
    while (workers < count && workers < MOST_WORKERS) {
        void *seen = (void *)(uintptr_t)generation;
        if (pthread_create(&worker_ids[workers], NULL, worker, seen) != 0) {
            break;
        }
        workers++;
    }
}

static void publish(void)
{
    const unsigned next = generation + 1;
    const unsigned number = next ? next : 1; /* 0 means closed */
    open_job = number;
    generation = number; /* awake workers see it now */
    caller_core = own_core();
    if (sleepers > 0) {
        pthread_mutex_lock(&bed); /* one that was about to sleep has gone to bed, or sees it */
        for (place *p = sleeping; p; p = p->next) {
            avoid(p, caller_core);
        }
        pthread_mutex_unlock(&bed);
        pthread_cond_broadcast(&wake);
    }
}

/* Ends the workers and waits until they are gone; the caller owns the pool. */
static void end_workers(void)
{
    if (workers == 0) {
        return;
    }
    ending = 1;
    publish();
    for (int i = 0; i < workers; i++) {
        pthread_join(worker_ids[i], NULL);
    }
    open_job = 0;
    workers = 0;
    numbered = 0;
    ending = 0;
}

void fd_stop_threads(void)
{
    pthread_mutex_lock(&owner);
    end_workers();
    pthread_mutex_unlock(&owner);
}

#if defined(__unix__) || defined(__APPLE__)
static _Thread_local int owner_forks; /* whether this thread has the pool while it forks */

static void before_fork(void)
{
    owner_forks =
        pthread_mutex_trylock(&owner) == 0; /* a call that has the pool is not waited for */
    if (owner_forks) {
        end_workers();
    }
}

static void after_fork(void)
{
    if (owner_forks) {
        pthread_mutex_unlock(&owner);
    }
}

/* The child of a process whose pool was in use has none of its workers. */
static void forget_workers(void)
{
    ending = 0;
    pthread_mutex_init(&owner, NULL);
    pthread_mutex_init(&bed, NULL);
    pthread_cond_init(&wake, NULL);
    workers = 0;
    sleepers = 0;
    numbered = 0;
    sleeping = NULL;
    inside = 0;
    open_job = 0;
}

__attribute__((constructor)) static void register_fork_handler(void)
{
    pthread_atfork(before_fork, after_fork, forget_workers);
}
#endif

void fd_parallel(int threads, int64_t tasks, fd_task run, const void *context)
{
    threads = threads < tasks ? threads : (int)tasks;
    threads = threads <= MOST_WORKERS ? threads : MOST_WORKERS + 1;
    if (threads <= 1 || pthread_mutex_trylock(&owner) != 0) {
        for (int64_t task = 0; task < tasks; task++) {
            run(context, task);
        }
        return;
    }
    hire(threads - 1);
    current.run = run;
    current.context = context;
    current.tasks = tasks;
    current.threads = threads;
    for (int s = 0; s < threads; s++) {
        shares[s].claimed = 0;
    }
    current.places_left = threads - 1;
    publish();
    work_on(&current, 0);
    open_job = 0;
    for (int look = 1; inside > 0; look++) {
        if (look % LOOKS_BEFORE_YIELD == 0) {
            sched_yield();
        } else {
            relax();
        }
    }
    pthread_mutex_unlock(&owner);
}
