/* noisy_body.h: noise applied to arrays, compiled once per instruction set: drawn a few blocks at a time, and
 * used while it is in the L1 cache. */

#define NOISY_CHUNK 1024

/* The lines of a chunk, fetched while its noise is made. */
static inline void noisy_prefetch(const void *x, void *out, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch((const char *)x + i);
        __builtin_prefetch((char *)out + i, 1);
    }
}

static inline FD_ALWAYS_INLINE void noisy_f32(const float *x, const float *z, float *out, int64_t n,
                                              float scale, int additive)
{
    const f32_vector s = f32_one(scale), one = f32_one(1.0f);
    int64_t i = 0;
    for (; i + f32_lanes <= n; i += f32_lanes) {
        const f32_vector value = f32_load(x + i), noise = f32_multiply(s, f32_load(z + i));
        f32_store(out + i,
                  additive ? f32_add(value, noise) : f32_multiply(value, f32_add(one, noise)));
    }
    for (; i < n; i++) {
        const float noise = scale * z[i];
        out[i] = additive ? x[i] + noise : x[i] * (1.0f + noise);
    }
}

static inline FD_ALWAYS_INLINE void noisy_f64(const double *x, const float *z, double *out,
                                              int64_t n, double scale, int additive)
{
    const f64_vector s = f64_one(scale), one = f64_one(1.0);
    int64_t i = 0;
    for (; i + f64_lanes <= n; i += f64_lanes) {
        const f64_vector value = f64_load(x + i), noise = f64_multiply(s, f64_widen(z + i));
        f64_store(out + i,
                  additive ? f64_add(value, noise) : f64_multiply(value, f64_add(one, noise)));
    }
    for (; i < n; i++) {
        const double noise = scale * z[i];
        out[i] = additive ? x[i] + noise : x[i] * (1.0 + noise);
    }
}

static inline FD_ALWAYS_INLINE void noisy_f16(const uint16_t *x, const float *z, uint16_t *out,
                                              int64_t n, float scale, int additive)
{
    float wide[NOISY_CHUNK];
    int64_t i = 0;
    for (; i + f16_lanes <= n; i += f16_lanes) {
        f16_widen(x + i, wide + i);
    }
    for (; i < n; i++) {
        wide[i] = fd_float_from_half(x[i]);
    }
    noisy_f32(wide, z, wide, n, scale, additive);
    for (i = 0; i + f16_lanes <= n; i += f16_lanes) {
        f16_narrow(wide + i, out + i);
    }
    for (; i < n; i++) {
        out[i] = fd_half_from_float(wide[i]);
    }
}

#define NOISY(R, element, scale_type)                                                              \
    static void R##_apply_noise(const fd_stream *stream, fd_noise noise, uint64_t first,           \
                                int64_t n, const void *from, void *to, double scale, int additive) \
    {                                                                                              \
        float z[NOISY_CHUNK];                                                                      \
        const element *x = from;                                                                   \
        element *out = to;                                                                         \
        for (int64_t done = 0; done < n; done += NOISY_CHUNK) {                                    \
            const int64_t count = n - done < NOISY_CHUNK ? n - done : NOISY_CHUNK;                 \
            noisy_prefetch(x + done, out + done, count * (int64_t)sizeof *x);                      \
            noise_blocks(stream, noise, (first + (uint64_t)done) / FD_BLOCK,                       \
                         (count + FD_BLOCK - 1) / FD_BLOCK, z);                                    \
            noisy_##R(x + done, z, out + done, count, (scale_type)scale, additive);                \
        }                                                                                          \
    }
NOISY(f16, uint16_t, float)
NOISY(f32, float, float)
NOISY(f64, double, double)
