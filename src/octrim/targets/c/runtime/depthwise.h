/* Depthwise convolutions: a channel is the sum of the taps of one plane. A block is one channel by up to DV vectors of pixels; so many sums at once hide
   how long a multiply-add takes. */
#if VL == 16 || defined(__aarch64__)
#define DV 8
#else
#define DV 4
#endif

INLINE void depthwise(const int vectors, const int activation, const float *x, const int32_t *taps, int count, const float *w, float bias, float *out) {
    V sum[DV];
    UNROLL for (int j = 0; j < vectors; j++) sum[j] = splat(bias);
    for (int t = 0; t < count; t++) {
        V weight = splat(w[t]);
        const float *p = x + taps[t];
        UNROLL for (int j = 0; j < vectors; j++) sum[j] = fma_(weight, load(p + j * VL), sum[j]);
    }
    UNROLL for (int j = 0; j < vectors; j++) store(out + j * VL, activation == RAW ? sum[j] : activated(activation, splat(0), sum[j]));
}
#define DEPTHWISE_BLOCK(name, activation, vectors)                                                                                               \
    KERNEL void name##_##vectors(const float *x, const int32_t *taps, int count, const float *w, float bias, float *out) {                       \
        depthwise(vectors, activation, x, taps, count, w, bias, out);                                                                            \
    }
#if DV == 8
#define DEPTHWISE_BLOCKS(name, activation)                                                                                                       \
    DEPTHWISE_BLOCK(name, activation, 1) DEPTHWISE_BLOCK(name, activation, 2) DEPTHWISE_BLOCK(name, activation, 4) DEPTHWISE_BLOCK(name, activation, 8)
#define PICK_DEPTHWISE(name, vectors) ((vectors) >= 8 ? name##_8 : (vectors) >= 4 ? name##_4 : (vectors) >= 2 ? name##_2 : name##_1)
#else
#define DEPTHWISE_BLOCKS(name, activation) DEPTHWISE_BLOCK(name, activation, 1) DEPTHWISE_BLOCK(name, activation, 2) DEPTHWISE_BLOCK(name, activation, 4)
#define PICK_DEPTHWISE(name, vectors) ((vectors) >= 4 ? name##_4 : (vectors) >= 2 ? name##_2 : name##_1)
#endif
DEPTHWISE_BLOCKS(depthwise, RAW)
DEPTHWISE_BLOCKS(depthwise_hardswish, HARDSWISH)

/* Computes the pixels 0 .. n, which lie in a row, of one channel. The last block is moved back to end at n; the activation follows when all sums are there. */
static void depthwise_row(const Step *s, float slope, const float *x, const int32_t *taps, const float *w, float bias, float *out, const float *add, int n) {
    if (n < VL) { /* less than a vector, by way of a buffer; what is read beyond n is thrown away */
        float few[VL] __attribute__((aligned(64)));
        depthwise_1(x, taps, s->count, w, bias, few);
        activate_vectors(s->activation, splat(slope), few, NULL, 1);
        for (int p = 0; p < n; p++) out[p] = few[p] + (add ? add[p] : 0.0f);
        return;
    }
    int within = ACTIVATED_BY(s, HARDSWISH) && !add; /* blocks compute this one, which most layouts with depthwise convolutions have */
    for (int p = 0; p < n;) {
        int vectors = 1; /* a power of two: as many as are left, or one block that fits where a part of it is done already */
        while (2 * vectors <= DV && vectors * VL < n - p && 2 * vectors * VL <= n) vectors *= 2;
        int at = p + vectors * VL <= n ? p : n - vectors * VL;
        (within ? PICK_DEPTHWISE(depthwise_hardswish, vectors) : PICK_DEPTHWISE(depthwise, vectors))(x + at, taps, s->count, w, bias, out + at);
        p = at + vectors * VL;
    }
    if (!within) activate(s->activation, slope, out, add, n);
}

/* weights: [channel][tap]. Rows y0 .. y1 are one row of pixels where source and result have the same pitch; what is written between rows is cleared. */
static void depthwise_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out], *r = s->add < 0 ? NULL : &w->net->maps[s->add];
    float slope = w->weights[s->slope];
    int joined = s->pitch == m->pitch;
    for (int c = 0; c < m->channels; c++) {
        const int32_t *taps = w->net->taps + s->taps + c * s->count;
        const float *weights = w->weights + s->weights + c * s->count;
        for (int y = y0; y < y1; y = joined ? y1 : y + 1) {
            float *out = w->arena + m->at + c * m->plane + y * m->pitch;
            const float *add = r ? w->arena + r->at + c * r->plane + y * r->pitch : NULL;
            depthwise_row(s, slope, w->arena + y * s->pitch, taps, weights, w->weights[s->bias + c], out, add, joined ? (y1 - y0) * m->pitch : m->width);
        }
        if (joined) clear_gaps(m, w->arena + m->at + c * m->plane, y0, y1);
    }
}
