/* A level of Detect: a 1 x 1 convolution with the numbers of a cell's boxes in the lanes, anchor after anchor, and decoding, which is s (a s + b) + c for
   every number with s = sigmoid: xy = (2 s - 1/2 + cell) stride, wh = 4 s^2 anchor, scores s. */
#if VL >= 8 || defined(__aarch64__)
#define CELLS 8
#else
#define CELLS 4
#endif
#define NUMBERS 16 /* numbers of a cell are filled up to a multiple of it */

#if VL == 16
#define PART 8
typedef float Part __attribute__((vector_size(32), aligned(4), may_alias));
#else
#define PART VL
typedef Unaligned Part;
#endif

/* Copies the numbers of a box, at least six, by vectors; the last one is moved back to end with them. */
INLINE void copy_box(const float *from, float *to, int values) {
    for (int i = 0; values >= PART && i < values; i += PART) {
        int at = i + PART <= values ? i : values - PART;
        *(Part *)(to + at) = *(const Part *)(from + at);
    }
    for (int i = 0; values < PART && i < values; i += 4) {
        int at = i + 4 <= values ? i : values - 4;
        store_four(to + at, load_four(from + at));
    }
}

/* Computes the numbers of `cells` cells, at most CELLS, that begin at column x. weight: [input][NUMBERS]. lanes: bias, a, b, and what c grows by per column
   and per row, `padded` floats apart. */
INLINE void head_lanes(const float *pixels, const int32_t *planes, int inputs, const float *weight, const float *lanes, int padded, float x, float y,
                       int cells, float *numbers) {
    V sum[CELLS];
    UNROLL for (int j = 0; j < CELLS; j++) sum[j] = load(lanes);
    for (int i = 0; i < inputs; i++, weight += NUMBERS) {
        V q = load(weight);
        const float *p = pixels + planes[i];
        if (cells < CELLS)
            for (int j = 0; j < cells; j++) sum[j] = fma_(q, splat(p[j]), sum[j]);
        else
            UNROLL for (int j = 0; j < CELLS; j++) sum[j] = fma_(q, splat(p[j]), sum[j]);
    }
    V a = load(lanes + padded), b = load(lanes + 2 * padded), column = load(lanes + 3 * padded), row = load(lanes + 4 * padded) * splat(y);
    UNROLL for (int j = 0; j < CELLS; j++) {
        V g = splat(1.0f) / (splat(1.0f) + exp2_minus(sum[j]));
        store(numbers + j * padded, fma_(g, fma_(g, a, b), fma_(column, splat(x + (float)j), row)));
    }
}

/* weights: [padded / NUMBERS][input][NUMBERS]. Scratch: the numbers of CELLS cells. */
static void head_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->in];
    const int32_t *planes = w->net->taps + s->taps;
    int values = w->net->values, all = s->anchors * values, padded = (all + NUMBERS - 1) / NUMBERS * NUMBERS, inputs = s->count, width = m->width;
    for (int y = y0; y < y1; y++)
        for (int x = 0; x < width; x += CELLS) {
            if (x + CELLS > width && width >= CELLS) x = width - CELLS;
            int cells = width - x < CELLS ? width - x : CELLS;
            for (int k = 0; k < all; k += VL) {
                const float *weight = w->weights + s->weights + k / NUMBERS * NUMBERS * inputs + k % NUMBERS;
                head_lanes(w->arena + y * m->pitch + x, planes, inputs, weight, w->weights + s->bias + k, padded, (float)x - 0.5f,
                           (float)(w->row + y) - 0.5f, cells, w->scratch + k);
            }
            for (int anchor = 0; anchor < s->anchors; anchor++) {
                float *boxes = w->boxes + (s->box + (anchor * m->height + w->row + y) * width + x) * values;
                for (int j = 0; j < cells; j++) copy_box(w->scratch + j * padded + anchor * values, boxes + j * values, values);
            }
        }
}
