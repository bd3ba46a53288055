/* parts.c: n elements cut into parts for the threads. */
#include "fastdrop.h"

typedef struct {
    int64_t n, part;
    fd_part run;
    const void *context;
} parted_job;

static void run_part(const void *context, int64_t task)
{
    const parted_job *j = context;
    const int64_t first = task * j->part, left = j->n - first;
    j->run(j->context, first, left < j->part ? left : j->part);
}

void fd_parallel_parts(int threads, int64_t n, int64_t part, fd_part run, const void *context)
{
    const parted_job job = {n, part, run, context};
    fd_parallel(threads, (n + part - 1) / part, run_part, &job);
}
