/* A level of Detect: a 1 x 1 convolution with the numbers of a box in the lanes, and decoding, which is s (a s + b) + c for every number with s = sigmoid:
   xy = (2 s - 1/2 + cell) stride, wh = 4 s^2 anchor, scores s. */
#if VL >= 8 || defined(__aarch64__)
#define CELLS 8
#else
#define CELLS 4
#endif
/* weights: [anchor][padded / 8][input][8]; behind them per anchor bias, a, b, and what c grows by per column and per row: [padded] each. */
static void head_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->in];
    const int32_t *planes = w->net->taps + s->taps;
    int values = w->net->values, padded = (values + 7) / 8 * 8, inputs = s->count, width = m->width;
    for (int anchor = 0; anchor < s->anchors; anchor++)
        for (int y = y0; y < y1; y++)
            for (int x = 0; x < width; x += CELLS) {
                if (x + CELLS > width && width >= CELLS) x = width - CELLS;
                int cells = width - x < CELLS ? width - x : CELLS;
                const float *pixels = w->arena + y * m->pitch + x;
                float *boxes = w->boxes + (s->box + (anchor * m->height + w->row + y) * width + x) * values;
                for (int k = 0; k < padded; k += HL) {
                    const float *weight = w->weights + s->weights + (anchor * padded + k / 8 * 8) * inputs + k % 8;
                    const float *bias = w->weights + s->bias + anchor * 5 * padded + k;
                    H sum[CELLS];
                    UNROLL for (int j = 0; j < CELLS; j++) sum[j] = load_h(bias);
                    for (int i = 0; i < inputs; i++, weight += 8) {
                        H q = load_h(weight);
                        const float *p = pixels + planes[i];
                        if (cells < CELLS)
                            for (int j = 0; j < cells; j++) sum[j] = fma_h(q, splat_h(p[j]), sum[j]);
                        else
                            UNROLL for (int j = 0; j < CELLS; j++) sum[j] = fma_h(q, splat_h(p[j]), sum[j]);
                    }
                    H a = load_h(bias + padded), b = load_h(bias + 2 * padded), column = load_h(bias + 3 * padded);
                    H row = load_h(bias + 4 * padded) * splat_h((float)(w->row + y) - 0.5f);
                    UNROLL for (int j = 0; j < CELLS; j++) {
                        H g = sigmoid_h(sum[j]);
                        sum[j] = fma_h(g, fma_h(g, a, b), fma_h(column, splat_h((float)(x + j) - 0.5f), row));
                    }
                    int count = values - k < HL ? values - k : HL;
                    for (int j = 0; j < cells; j++) {
                        float *box = boxes + j * values;
                        if (count == HL) store_h(box + k, sum[j]);
                        else {
                            float few[HL];
                            memcpy(few, &sum[j], sizeof few);
                            for (int i = 0; i < count; i++) box[k + i] = few[i];
                        }
                    }
                }
            }
}
