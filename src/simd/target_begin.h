/* target_begin.h: what follows, until target_end.h, is compiled for the instruction sets FD_TARGET,
 * a string. Include system headers before: their functions carry their own targets. */
#define FD_PRAGMA_(text) _Pragma(#text)
#define FD_PRAGMA(text) FD_PRAGMA_(text)
#if defined(__clang__)
FD_PRAGMA(clang attribute push(__attribute__((target(FD_TARGET))), apply_to = function))
#else
FD_PRAGMA(GCC push_options)
FD_PRAGMA(GCC target(FD_TARGET))
#endif
