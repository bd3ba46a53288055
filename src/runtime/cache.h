/* cache.h: sizes of caches. */
#ifndef FD_CACHE_H
#define FD_CACHE_H

#include <stdint.h>

int64_t fd_last_level_cache_bytes(void);
int64_t fd_second_level_cache_bytes(void); /* of one core */
int64_t fd_first_level_cache_bytes(void);  /* of data, of one core */
int64_t fd_cache_of_core_bytes(void); /* of all levels, as much as one core can keep to itself */

/* For tests; 0: what it is. */
void fd_assume_first_level_cache(int64_t bytes);
void fd_assume_cache_of_core(int64_t bytes);

#endif
