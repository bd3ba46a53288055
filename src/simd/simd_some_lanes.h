/* simd_some_lanes.h: storing some lanes of a vector and nothing beside them, one by one: for instruction
 * sets whose stores take no mask of bits. */
#define FD_DEFINE_SOME_LANES(R)                                                             \
    static inline void R##_store_lanes(R##_element *p, R##_vector v, uint64_t bits)         \
    {                                                                                       \
        R##_element lanes[R##_lanes];                                                       \
        R##_store(lanes, v);                                                                \
        for (int lane = 0; lane < R##_lanes; lane++) {                                      \
            if (bits >> lane & 1) {                                                         \
                p[lane] = lanes[lane];                                                      \
            }                                                                               \
        }                                                                                   \
    }

FD_DEFINE_SOME_LANES(f32)
FD_DEFINE_SOME_LANES(f64)
