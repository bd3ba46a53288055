/* join.h: R_(name) is the name for element type R. No include guard: templates include it anew. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define R_(name) JOIN(R, JOIN(_, name))
