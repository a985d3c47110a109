/* Convolutions as sums over taps. A block is 1, 2, 4 or 8 channels by PV vectors of pixels that stay in registers over all taps. */
#if VL == 16 || defined(__aarch64__)
#define MOST 8 /* channels of a block: 32 registers hold 8 x 3 accumulators */
#define PV 3
#elif VL == 8
#define MOST 4
#define PV 3
#else
#define MOST 4
#define PV 2
#endif

/* An activation: LINEAR is max(z, slope z). z and the result carry log2(e). */
INLINE V activated(int activation, V slope, V z) {
    const float log2e = 1.442695041f;
    if (activation == SILU) return silu(z);
    if (activation == RELU6) return min_(max_(z, splat(0)), splat(6 * log2e));
    if (activation == HARDSWISH) return z * min_(max_(fma_(z, splat(1 / (6 * log2e)), splat(0.5f)), splat(0)), splat(1));
    if (activation == SIGMOID) return splat(log2e) / (splat(1.0f) + exp2_minus(z));
    if (activation == MISH) { /* tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2); above 40 it is 1 */
        V e = exp2_minus(max_(splat(0) - z, splat(-40.0f))), n = e * (e + splat(2.0f));
        return z * n / (n + splat(2.0f));
    }
    return max_(z, slope * z);
}

/* Applies activation and sum to so many vectors that lie in a row. */
INLINE void activate_each(const int activation, V slope, float *p, const float *add, int vectors) {
    for (int i = 0; i < vectors * VL; i += VL) {
        V y = activated(activation, slope, load(p + i));
        store(p + i, add ? y + load(add + i) : y);
    }
}
static void activate_vectors(int activation, V slope, float *p, const float *add, int vectors) {
    if (activation == HARDSWISH) activate_each(HARDSWISH, slope, p, add, vectors);
    else if (activation == RELU6) activate_each(RELU6, slope, p, add, vectors);
    else activate_each(activation, slope, p, add, vectors);
}

/* Applies activation and sum to n floats that lie in a row; n may be any number. */
static void activate(int activation, float slope, float *p, const float *add, int n) {
    float few[VL] __attribute__((aligned(64))) = {0};
    int vectors = n / VL, rest = n - vectors * VL;
    activate_vectors(activation, splat(slope), p, add, vectors);
    if (!rest) return;
    p += vectors * VL;
    memcpy(few, p, (size_t)rest * sizeof(float));
    activate_vectors(activation, splat(slope), few, NULL, 1);
    for (int i = 0; i < rest; i++) p[i] = few[i] + (add ? add[vectors * VL + i] : 0.0f);
}

enum { RAW = -1 }; /* no activation and no sum, for the products of Winograd's transform */

/* A sum of more taps than this is made of sums over as many: its rounding error grows with the number of terms. */
#define MANY 128

/* w: [tap][8 channels]. many: whether there are more taps than MANY. slope: of LINEAR. add: added behind the activation where it is not NULL. */
INLINE void block(const int channels, const int vectors, const int activation, const int many, const float *x, const int32_t *taps, int count,
                  const float *w, const float *bias, V slope, float *out, int plane, const float *add, int add_plane) {
    V sum[8][PV], before[8][PV];
    UNROLL for (int c = 0; c < channels; c++)
        UNROLL for (int j = 0; j < vectors; j++) sum[c][j] = splat(activation == RAW ? 0.0f : bias[c]);
    for (int t = 0, end = many ? MANY : count;; end = count - t < MANY ? count : t + MANY) {
        for (; t < end; t++, w += 8) {
            V pixels[PV];
            const float *p = x + taps[t];
            UNROLL for (int j = 0; j < vectors; j++) pixels[j] = load(p + j * VL);
            UNROLL for (int c = 0; c < channels; c++) {
                V weight = splat(w[c]);
                UNROLL for (int j = 0; j < vectors; j++) sum[c][j] = fma_(weight, pixels[j], sum[c][j]);
            }
        }
        if (!many) break;
        if (t > MANY)
            UNROLL for (int c = 0; c < channels; c++)
                UNROLL for (int j = 0; j < vectors; j++) sum[c][j] += before[c][j];
        if (t == count) break;
        UNROLL for (int c = 0; c < channels; c++)
            UNROLL for (int j = 0; j < vectors; j++) {
                before[c][j] = sum[c][j];
                sum[c][j] = splat(0);
            }
    }
    UNROLL for (int c = 0; c < channels; c++) {
        UNROLL for (int j = 0; j < vectors; j++) {
            if (activation != RAW) sum[c][j] = activated(activation, slope, sum[c][j]);
        }
        if (activation != RAW && add)
            UNROLL for (int j = 0; j < vectors; j++) sum[c][j] += load(add + c * add_plane + j * VL);
        UNROLL for (int j = 0; j < vectors; j++) store(out + c * plane + j * VL, sum[c][j]);
    }
}

#define BLOCK(name, activation, channels, vectors, many)                                                                                      \
    KERNEL void name##_##channels##x##vectors(const float *x, const int32_t *taps, int count, const float *w, const float *bias, float slope, \
                                              float *out, int plane, const float *add, int add_plane) {                                       \
        block(channels, vectors, activation, many, x, taps, count, w, bias, splat(slope), out, plane, add, add_plane);                        \
    }
/* Computes `left` channels, at most 8, in blocks as large as possible. Sums of many taps are made of shorter ones in the largest blocks only. */
#define RUN(name, n, vectors) name##_##n##x##vectors(x, taps, count, w + c, bias + c, slope, out + c * plane, plane, more, add_plane), c += n
#define BLOCKS(name, activation, vectors)                                                                                                    \
    BLOCK(name, activation, 8, vectors, 0)                                                                                                   \
    BLOCK(name, activation, 4, vectors, 0)                                                                                                   \
    BLOCK(name, activation, 2, vectors, 0)                                                                                                   \
    BLOCK(name, activation, 1, vectors, 0)                                                                                                   \
    BLOCK(name##_many, activation, 8, vectors, 1)                                                                                            \
    BLOCK(name##_many, activation, 4, vectors, 1)                                                                                            \
    static void name##_##vectors(const float *x, const int32_t *taps, int count, const float *w, const float *bias, float slope, float *out, \
                                 int plane, const float *add, int add_plane, int left) {                                                     \
        for (int c = 0; c < left;) {                                                                                                         \
            const float *more = add ? add + c * add_plane : NULL;                                                                            \
            int rest = left - c;                                                                                                             \
            if (MOST == 8 && rest >= 8 && count > MANY) RUN(name##_many, 8, vectors);                                                        \
            else if (MOST == 8 && rest >= 8) RUN(name, 8, vectors);                                                                          \
            else if (MOST == 4 && rest >= 4 && count > MANY) RUN(name##_many, 4, vectors);                                                   \
            else if (rest >= 4) RUN(name, 4, vectors);                                                                                       \
            else if (rest >= 2) RUN(name, 2, vectors);                                                                                       \
            else RUN(name, 1, vectors);                                                                                                      \
        }                                                                                                                                    \
    }

/* Number of vectors of the next block where `left` of `all` pixels are to be done: at most `most`, and no more than there are pixels in all. */
static int next_vectors(int left, int all, int most) {
    int vectors = (left + VL - 1) / VL;
    if (vectors > most) vectors = most;
    while (vectors * VL > all) vectors--;
    return vectors;
}

#if PV == 3
#define ALL_BLOCKS(name, activation) BLOCKS(name, activation, 1) BLOCKS(name, activation, 2) BLOCKS(name, activation, 3)
#define PICK(name, vectors) ((vectors) == 3 ? name##_3 : (vectors) == 2 ? name##_2 : name##_1)
#else
#define ALL_BLOCKS(name, activation) BLOCKS(name, activation, 1) BLOCKS(name, activation, 2)
#define PICK(name, vectors) ((vectors) == 2 ? name##_2 : name##_1)
#endif
ALL_BLOCKS(with_silu, SILU)
ALL_BLOCKS(with_hardswish, HARDSWISH)
ALL_BLOCKS(linear, LINEAR)
ALL_BLOCKS(raw, RAW)

/* Computes all of `channels` for the pixels p0 .. p1, which lie in a row. The last block is moved back to end at p1, and what two blocks share is computed twice.
   An activation that blocks do not compute is applied to what a block has just written, while the first cache has it. */
#define CONVOLUTION_OVER(name, blocks, apart)                                                                                                   \
    static void name(int activation, const float *x, const int32_t *taps, int count, const float *w, const float *bias, float slope, int channels, \
                     float *out, int plane, const float *add, int add_plane, int p0, int p1) {                                                  \
        for (int c = 0; c < channels; c += 8, w += count * 8, bias += 8) {                                                                      \
            float *o = out + c * plane;                                                                                                         \
            const float *more = add ? add + c * add_plane : NULL;                                                                               \
            int left = channels - c < 8 ? channels - c : 8;                                                                                     \
            for (int p = p0; p < p1;) {                                                                                                         \
                int vectors = next_vectors(p1 - p, p1 - p0, PV), at = p + vectors * VL <= p1 ? p : p1 - vectors * VL;                               \
                PICK(blocks, vectors)(x + at, taps, count, w, bias, slope, o + at, plane, more && !apart ? more + at : NULL, add_plane, left);  \
                for (int k = 0; apart && k < left; k++)                                                                                         \
                    activate_vectors(activation, splat(slope), o + k * plane + at, more ? more + k * add_plane + at : NULL, vectors);           \
                p = at + vectors * VL;                                                                                                          \
            }                                                                                                                                   \
        }                                                                                                                                       \
    }
CONVOLUTION_OVER(convolve_silu, with_silu, 0)
CONVOLUTION_OVER(convolve_hardswish, with_hardswish, 0)
CONVOLUTION_OVER(convolve_linear, linear, 0)
CONVOLUTION_OVER(convolve_other, linear, 1)

#define APART (ACTIVATIONS & ~(1u << SILU | 1u << HARDSWISH | 1u << LINEAR)) /* activations that blocks do not compute */

/* Computes the pixels p0 .. p1 of all channels of a group, whatever the activation and however few they are. */
static void convolve(const Step *s, const float *x, const int32_t *taps, const float *w, const float *bias, float slope, int channels, float *out,
                     int plane, const float *add, int add_plane, int p0, int p1) {
    if (p1 - p0 < VL) { /* less than a vector, by way of a buffer; what is read beyond p1 is thrown away */
        float few[8 * VL] __attribute__((aligned(64)));
        for (int c = 0; c < channels; c += 8, w += s->count * 8, bias += 8) {
            int left = channels - c < 8 ? channels - c : 8;
            linear_1(x + p0, taps, s->count, w, bias, 1.0f, few, VL, NULL, 0, left);
            for (int k = 0; k < left; k++) {
                activate_vectors(s->activation, splat(slope), few + k * VL, NULL, 1);
                float *o = out + (c + k) * plane;
                for (int p = p0; p < p1; p++) o[p] = few[k * VL + p - p0] + (add ? add[(c + k) * add_plane + p] : 0.0f);
            }
        }
        return;
    }
    if (ACTIVATED_BY(s, SILU)) convolve_silu(SILU, x, taps, s->count, w, bias, slope, channels, out, plane, add, add_plane, p0, p1);
    else if (ACTIVATED_BY(s, HARDSWISH)) convolve_hardswish(HARDSWISH, x, taps, s->count, w, bias, slope, channels, out, plane, add, add_plane, p0, p1);
    else if (ACTIVATED_BY(s, LINEAR)) convolve_linear(LINEAR, x, taps, s->count, w, bias, slope, channels, out, plane, add, add_plane, p0, p1);
    else if (APART) convolve_other(s->activation, x, taps, s->count, w, bias, 1.0f, channels, out, plane, add, add_plane, p0, p1);
}

/* Computes a convolution group by group. Where source and result have the same pitch, rows y0 .. y1 are one row of pixels; what is written between
   rows is cleared. */
static void convolution_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out], *r = s->add < 0 ? NULL : &w->net->maps[s->add];
    int channels = m->channels / s->groups, padded = (channels + 7) / 8 * 8;
    for (int g = 0; g < s->groups; g++) {
        const int32_t *taps = w->net->taps + s->taps + g * s->count;
        const float *weights = w->weights + s->weights + g * padded * s->count, *bias = w->weights + s->bias + g * padded;
        const float *add = r ? w->arena + r->at + g * channels * r->plane : NULL;
        float *out = w->arena + m->at + g * channels * m->plane, slope = w->weights[s->slope];
        int add_plane = r ? r->plane : 0;
        if (s->pitch == m->pitch) {
            convolve(s, w->arena, taps, weights, bias, slope, channels, out, m->plane, add, add_plane, y0 * m->pitch, y1 * m->pitch);
            continue;
        }
        for (int y = y0; y < y1; y++)
            convolve(s, w->arena + y * s->pitch, taps, weights, bias, slope, channels, out + y * m->pitch, m->plane, add ? add + y * m->pitch : NULL,
                     add_plane, 0, m->width);
    }
    for (int c = 0; c < m->channels && s->pitch == m->pitch; c++) clear_gaps(m, w->arena + m->at + c * m->plane, y0, y1);
}

/* Computes any convolution by its definition. taps: the planes of the input's channels; w: [channel][input][row][column]. */
static void plain_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out], *a = &w->net->maps[s->in], *r = s->add < 0 ? NULL : &w->net->maps[s->add];
    int k = s->kernel, channels = m->channels / s->groups;
    for (int c = 0; c < m->channels; c++)
        for (int y = y0; y < y1; y++) {
            float *o = w->arena + m->at + c * m->plane + y * m->pitch;
            for (int x = 0; x < m->width; x++) {
                const float *weight = w->weights + s->weights + (size_t)c * (size_t)s->count * (size_t)(k * k);
                const int32_t *planes = w->net->taps + s->taps + c / channels * s->count;
                float sum = w->weights[s->bias + c];
                for (int i = 0; i < s->count; i++)
                    for (int ky = 0; ky < k; ky++)
                        for (int kx = 0; kx < k; kx++, weight++) {
                            int v = y * s->stride - s->padding + ky, u = x * s->stride - s->padding + kx;
                            if (v >= 0 && v < a->height && u >= 0 && u < a->width) sum += *weight * w->arena[planes[i] + v * a->pitch + u];
                        }
                o[x] = sum;
            }
            activate(s->activation, w->weights[s->slope], o, r ? w->arena + r->at + c * r->plane + y * r->pitch : NULL, m->width);
        }
}
