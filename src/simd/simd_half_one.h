/* simd_half_one.h: half precision one element at a time, where there is no vector conversion. */
#define f16_element uint16_t
#define f16_lanes 1
typedef float f16_vector; /* the product, in float */
static inline f16_vector f16_splat(double s) { return fd_float_from_half(fd_half_from_double(s)); }
static inline f16_vector f16_product(const uint16_t *p, f16_vector s)
{
    return fd_float_from_half(*p) * s;
}
static inline f16_vector f16_keep(f16_vector v, uint64_t bits) { return bits & 1 ? v : 0.0f; }
static inline void f16_store(uint16_t *p, f16_vector v) { *p = fd_half_from_float(v); }
static inline void f16_stream(uint16_t *p, f16_vector v) { f16_store(p, v); }
static inline void f16_widen(const uint16_t *p, float *to) { *to = fd_float_from_half(*p); }
static inline void f16_narrow(const float *p, uint16_t *to) { *to = fd_half_from_float(*p); }
static inline f16_vector f16_constant(double value) { return (float)value; }
static inline f16_vector f16_add(f16_vector a, f16_vector b) { return a + b; }
static inline f16_vector f16_multiply(f16_vector a, f16_vector b) { return a * b; }
static inline void f16_add_to(float *p, f16_vector v) { *p += v; }
