/* target_end.h: back to the baseline. */
#if defined(__clang__)
FD_PRAGMA(clang attribute pop)
#else
FD_PRAGMA(GCC pop_options)
#endif
