/* simd_some_lanes.h: loading and storing some lanes of a vector and nothing beside them, one by one: for
 * instruction sets whose loads and stores take no mask. */
#define FD_DEFINE_SOME_LANES(R)                                                                    \
    static inline int R##_all_lanes(uint64_t bits)                                                 \
    {                                                                                              \
        return (~bits & (((uint64_t)1 << R##_lanes) - 1)) == 0;                                    \
    }                                                                                              \
    static inline R##_vector R##_load_lanes(const R##_element *p, uint64_t bits)                   \
    {                                                                                              \
        R##_element lanes[R##_lanes] = {0};                                                        \
        for (int lane = 0; lane < R##_lanes && !R##_all_lanes(bits); lane++) {                     \
            if (bits >> lane & 1) {                                                                \
                lanes[lane] = p[lane];                                                             \
            }                                                                                      \
        }                                                                                          \
        return R##_load(R##_all_lanes(bits) ? p : lanes);                                          \
    }                                                                                              \
    static inline void R##_store_lanes(R##_element *p, R##_vector v, uint64_t bits)                \
    {                                                                                              \
        R##_element lanes[R##_lanes];                                                              \
        R##_store(R##_all_lanes(bits) ? p : lanes, v);                                             \
        for (int lane = 0; lane < R##_lanes && !R##_all_lanes(bits); lane++) {                     \
            if (bits >> lane & 1) {                                                                \
                p[lane] = lanes[lane];                                                             \
            }                                                                                      \
        }                                                                                          \
    }

FD_DEFINE_SOME_LANES(f32)
FD_DEFINE_SOME_LANES(f64)
