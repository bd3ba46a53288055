/* simd_compress.h: moving selected lanes together and apart, and transposing, lane by lane: for
 * instruction sets without a permutation by a variable order. */
#define FD_DEFINE_COMPRESS(R)                                                                      \
    static inline void R##_compress(R##_element *p, R##_vector v, uint64_t bits)                   \
    {                                                                                              \
        R##_element lanes[R##_lanes];                                                              \
        R##_store(lanes, v);                                                                       \
        for (int lane = 0; lane < R##_lanes; lane++) {                                             \
            *p = lanes[lane];                                                                      \
            p += bits >> lane & 1;                                                                 \
        }                                                                                          \
    }                                                                                              \
    static inline void R##_transpose(const R##_element *p, int64_t stride, R##_element *to,        \
                                     int64_t to_stride)                                            \
    {                                                                                              \
        (void)to_stride;                                                                           \
        for (int lane = 0; lane < R##_lanes; lane++) {                                             \
            to[lane] = p[lane * stride];                                                           \
        }                                                                                          \
    }

#define FD_DEFINE_COLLECT(R)                                                                       \
    typedef const uint8_t *R##_order;                                                              \
    static inline R##_order R##_order_of(const uint8_t *numbers) { return numbers; }               \
    static inline R##_vector R##_collect(const R##_element *p, R##_order order)                    \
    {                                                                                              \
        R##_element lanes[R##_lanes];                                                              \
        for (int lane = 0; lane < R##_lanes; lane++) {                                             \
            lanes[lane] = p[order[lane]];                                                          \
        }                                                                                          \
        return R##_load(lanes);                                                                    \
    }

#define FD_DEFINE_EXPAND(R)                                                                        \
    static inline R##_vector R##_expand(const R##_element *p, uint64_t bits)                       \
    {                                                                                              \
        R##_element lanes[R##_lanes];                                                              \
        for (int lane = 0; lane < R##_lanes; lane++) {                                             \
            lanes[lane] = *p;                                                                      \
            p += bits >> lane & 1;                                                                 \
        }                                                                                          \
        return R##_keep(R##_load(lanes), bits);                                                    \
    }

#define f32_transpose_depth 1
#define f64_transpose_depth 1
FD_DEFINE_COMPRESS(f32)
FD_DEFINE_COMPRESS(f64)
FD_DEFINE_COLLECT(f32)
FD_DEFINE_COLLECT(f64)

static inline void write_numbers(uint16_t *to, uint64_t word, int first, int unit)
{
    for (; word; word &= word - 1) {
        *to++ = (uint16_t)((first + __builtin_ctzll(word)) * unit);
    }
}
