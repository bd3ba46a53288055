/* threads.h: OpenMP where it is there, one thread where it is not. */
#ifndef FASTDROP_THREADS_H
#define FASTDROP_THREADS_H

#ifdef _OPENMP
#include <omp.h>
#define FD_PRAGMA(text) _Pragma(#text)
#define FD_PARALLEL_FOR(threads) \
    FD_PRAGMA(omp parallel for num_threads(threads) schedule(static) if ((threads) > 1))
#else
#define FD_PARALLEL_FOR(threads) (void)(threads);
#endif

#endif
