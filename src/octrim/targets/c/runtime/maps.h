/* Steps that move maps: margins, split by parity, sums, pools, upsampling. */

/* Writes zeros between the rows y0 .. y1 of a channel, where a step that takes all rows for one line has written. Nothing is ever written above the first
   row and below the last one, and maps that use the same memory are of the same size, all padded or none: there the zeros of engine_open stay. */
static void clear_gaps(const Map *m, float *plane, int y0, int y1) {
    if (!m->padded) return;
    for (int y = y0; y < y1; y++)
        for (int x = 0; x < m->margin; x++) plane[y * m->pitch + m->width + x] = 0;
}

/* Parts 2 n elements into even and odd ones; the last vector is moved back to end at n. */
static void part_row(const float *p, int n, float *even, float *odd) {
    if (n >= VL)
        for (int x = 0; x < n; x += VL) {
            int at = x + VL <= n ? x : n - VL;
            V u = load(p + 2 * at), v = load(p + 2 * at + VL);
            store(even + at, even_of(u, v));
            store(odd + at, odd_of(u, v));
        }
    else if (n >= 4)
        for (int x = 0; x < n; x += 4) {
            int at = x + 4 <= n ? x : n - 4;
            Four u = load_four(p + 2 * at), v = load_four(p + 2 * at + 4);
            store_four(even + at, SHUFFLE_FOUR(u, v, 0, 2, 4, 6));
            store_four(odd + at, SHUFFLE_FOUR(u, v, 1, 3, 5, 7));
        }
    else
        for (int x = 0; x < n; x++) even[x] = p[2 * x], odd[x] = p[2 * x + 1];
}

/* Writes every element twice. */
static void double_row(const float *p, int n, float *d) {
    if (n >= VL)
        for (int x = 0; x < n; x += VL) {
            int at = x + VL <= n ? x : n - VL;
            V v = load(p + at);
            store(d + 2 * at, low_of(v, v));
            store(d + 2 * at + VL, high_of(v, v));
        }
    else if (n >= 4)
        for (int x = 0; x < n; x += 4) {
            int at = x + 4 <= n ? x : n - 4;
            Four v = load_four(p + at);
            store_four(d + 2 * at, SHUFFLE_FOUR(v, v, 0, 0, 1, 1));
            store_four(d + 2 * at + 4, SHUFFLE_FOUR(v, v, 2, 2, 3, 3));
        }
    else
        for (int x = 0; x < n; x++) d[2 * x] = d[2 * x + 1] = p[x];
}

/* Splits a map by even and odd columns and rows, each into a plane of its own: a convolution of stride 2 reads these. Rows are those of the result. */
static void parity_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *a = &w->net->maps[s->in], *m = &w->net->maps[s->out];
    int n = m->width;
    for (int c = 0; c < a->channels; c++)
        for (int y = 2 * y0; y < 2 * y1; y++) {
            const float *p = w->arena + a->at + c * a->plane + y * a->pitch;
            float *even = w->arena + m->at + (c * 4 + (y & 1) * 2) * m->plane + (y >> 1) * m->pitch, *odd = even + m->plane;
            part_row(p, n, even, odd);
        }
}

/* Adds two lists of planes. */
static void add_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out];
    const int32_t *a = w->net->taps + s->taps, *b = a + s->count;
    for (int c = 0; c < s->count; c++) {
        float *d = w->arena + m->at + c * m->plane;
        for (int i = y0 * m->pitch; i < y1 * m->pitch; i++) d[i] = w->arena[a[c] + i] + w->arena[b[c] + i];
        clear_gaps(m, d, y0, y1);
    }
}

/* Enlarges planes by a whole factor, nearest neighbour. Rows are those of the source. */
static void upsample_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *a = &w->net->maps[s->in], *m = &w->net->maps[s->out];
    int f = s->stride;
    for (int c = 0; c < a->channels; c++)
        for (int y = y0; y < y1; y++) {
            const float *p = w->arena + a->at + c * a->plane + y * a->pitch;
            float *d = w->arena + m->at + c * m->plane + y * f * m->pitch;
            if (f == 2) double_row(p, a->width, d);
            else
                for (int x = 0; x < m->width; x++) d[x] = p[x / f];
            for (int i = 1; i < f; i++) memcpy(d + i * m->pitch, d, (size_t)m->width * sizeof(float));
        }
}

#define LOWEST (-3.4e38f)

/* Number of rows of the band that begins with row y of a map. */
static int rows_of_band(const Map *m, int y) { return m->height - y < m->rows ? m->height - y : m->rows; }

/* The largest of n floats `step` apart. */
INLINE float largest(const float *p, int n, int step) {
    float best = LOWEST;
    for (int i = 0; i < n; i++)
        if (p[i * step] > best) best = p[i * step];
    return best;
}

/* Pools one plane at any stride; there is one band then. Scratch: `length` floats each of a line of maxima along columns, which begins at column -padding
   with LOWEST beyond the map, and of its even and odd elements, over which maxima along rows are those of stride 1 where the stride is 2. */
static void pool_plane(const float *p, const Map *a, float *d, const Map *m, const Step *s, float *line, int length) {
    float *even = line + length, *odd = even + length, *inner = line + s->padding;
    for (int i = 0; i < length; i++) line[i] = LOWEST;
    for (int y = 0; y < m->height; y++, d += m->pitch) {
        int top = y * s->stride - s->padding, first = top > 0 ? top : 0, last = top + s->kernel < a->height ? top + s->kernel : a->height;
        const float *from = p + first * a->pitch;
        int x = 0, rows = last - first;
        for (; x + VL <= a->width; x += VL) {
            V best = splat(LOWEST);
            for (int i = 0; i < rows; i++) best = max_(best, load(from + i * a->pitch + x));
            store(inner + x, best);
        }
        for (; x < a->width; x++) inner[x] = largest(from + x, rows, a->pitch);
        x = 0;
        if (s->stride == 2 && m->width >= VL) {
            part_row(line, m->width + s->kernel / 2, even, odd);
            for (; x < m->width; x += VL) {
                if (x + VL > m->width) x = m->width - VL; /* the last vector is moved back to end with the row */
                V best = load(even + x);
                for (int j = 1; j < s->kernel; j++) best = max_(best, load((j & 1 ? odd : even) + x + j / 2));
                store(d + x, best);
            }
        }
        for (; x < m->width; x++) d[x] = largest(line + x * s->stride, s->kernel, 1);
    }
}

/* Copies rows from one pitch to another. A vector may reach beyond its row, which the next row repairs, but not beyond the last one. */
static void copy_rows(const float *from, int pitch, int rows, int width, float *to, int to_pitch) {
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < width; x += VL) {
            if (x + VL <= (rows - y) * (pitch < to_pitch ? pitch : to_pitch)) store(to + y * to_pitch + x, load(from + y * pitch + x));
            else memcpy(to + y * to_pitch + x, from + y * pitch + x, (size_t)(width - x < VL ? width - x : VL) * sizeof(float));
        }
}

/* Pools one plane of all bands at stride 1: maxima along rows, then along columns, over all rows as one line, with `padding` columns and rows of LOWEST around. */
static void pool_plane_1(const Network *net, const float *p, const Map *a, float *d, const Map *m, const Step *s, float *scratch) {
    int pad = s->padding, pitch = a->width + pad + (pad == 0), rows = a->height + 2 * pad, n = rows * pitch;
    float *pixels = scratch + pad + VL, *along = pixels + n + s->kernel + 2 * VL;
    for (int i = -pad; i < n + pad; i++) pixels[i] = LOWEST;
    for (int band = 0, y = 0; band < net->bands; band++, y += a->rows)
        copy_rows(p + (size_t)band * (size_t)net->arena, a->pitch, rows_of_band(a, y), a->width, pixels + (pad + y) * pitch, pitch);
    for (int y = 0; y < rows; y++)
        for (int x = a->width; x < pitch; x++) pixels[y * pitch + x] = LOWEST;
    for (int i = 0; i < n; i += VL) {
        V best = load(pixels + i - pad);
        for (int k = 1; k < s->kernel; k++) best = max_(best, load(pixels + i - pad + k));
        store(along + i, best);
    }
    for (int i = 0; i < m->height * pitch; i += VL) {
        V best = load(along + i);
        for (int k = 1; k < s->kernel; k++) best = max_(best, load(along + i + k * pitch));
        store(pixels + i, best);
    }
    for (int band = 0, y = 0; band < net->bands; band++, y += m->rows) {
        float *to = d + (size_t)band * (size_t)net->arena;
        copy_rows(pixels + y * pitch, pitch, rows_of_band(m, y), m->width, to, m->pitch);
        clear_gaps(m, to, 0, rows_of_band(m, y));
    }
}

/* Pools the channels c0 .. c1: maxima over windows, which are cut off at the border. */
static void pool_step(const Work *w, const Step *s, int c0, int c1) {
    const Map *a = &w->net->maps[s->in], *m = &w->net->maps[s->out];
    for (int c = c0; c < c1; c++) {
        const float *p = w->arena + a->at + c * a->plane;
        float *d = w->arena + m->at + c * m->plane;
        if (s->stride == 1 && m->width <= a->width) pool_plane_1(w->net, p, a, d, m, s, w->scratch);
        else pool_plane(p, a, d, m, s, w->scratch, s->count);
    }
}
