/* simd_half_one.h: half precision one element at a time, where there is no vector conversion. */
#define f16_element uint16_t
#define f16_lanes 1
typedef float f16_vector;
static inline f16_vector f16_load(const uint16_t *p) { return fd_float_from_half(*p); }
static inline void f16_store(uint16_t *p, f16_vector v) { *p = fd_half_from_float(v); }
static inline void f16_stream(uint16_t *p, f16_vector v) { f16_store(p, v); }
