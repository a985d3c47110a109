/* The stem, 6 x 6 with stride 2 and padding 2 on bytes, which takes more time than any other layer: it is a 3 x 3 window of stride 1 over 12 planes
   (channel, parity of row, parity of column), and Winograd's F(4, 3) over lines times F(2, 3) over columns makes three times fewer products.

   A tile is 4 x 2 results: column t of the tiles reads the columns 4t - 2 .. 4t + 5 of the picture. A line of the picture becomes 12 lines of floats,
   one per channel, parity of the column and half (columns 4t, 4t + 1: half 0; 4t + 2, 4t + 3: half 1). */

/* Transforms the products of up to 8 channels, m: [4][6][8][width], back to 4 x 2 results per tile. Where `split`, columns and rows of the result go
   to planes by parity. out: the first channel's place for tile 0. */
INLINE void stem_out(int activation, const float *m, int width, int left, const float *bias, V slope, float *out, int plane, int pitch, int split) {
    for (int c = 0; c < left; c++)
        for (int j = 0; j < width; j += VL) {
            V even[6], odd[6], first[4], second[4];
            UNROLL for (int k = 0; k < 6; k++) {
                const float *p = m + (k * 8 + c) * width + j;
                V a = load(p), b = load(p + 48 * width), d = load(p + 96 * width), e = load(p + 144 * width);
                even[k] = a + b + d;
                odd[k] = b - d - e;
            }
            lines_out(even, splat(bias[c]), first);
            lines_out(odd, splat(bias[c]), second);
            UNROLL for (int i = 0; i < 4; i++) {
                first[i] = activated(activation, slope, first[i]);
                second[i] = activated(activation, slope, second[i]);
            }
            if (split) {
                float *o = out + 4 * c * plane + j;
                UNROLL for (int i = 0; i < 4; i++) {
                    store(o + (i & 1) * 2 * plane + (i >> 1) * pitch, first[i]);
                    store(o + ((i & 1) * 2 + 1) * plane + (i >> 1) * pitch, second[i]);
                }
            } else {
                float *o = out + c * plane + 2 * j;
                UNROLL for (int i = 0; i < 4; i++) {
                    store(o + i * pitch, low_of(first[i], second[i]));
                    store(o + i * pitch + VL, high_of(first[i], second[i]));
                }
            }
        }
}

#if MOST == 8
#define FEW 4
#else
#define FEW 2
#endif

/* Product k of 4 of F(2, 3) over the columns of one line. even, odd: halves 0 and 1. */
INLINE V column_in(int k, const float *even, const float *odd) {
    if (k == 0) return load(odd - 1) - load(odd);
    if (k == 1) return load(even) + load(odd);
    if (k == 2) return load(odd) - load(even);
    return load(even) - load(even + 1);
}

/* For few channels, transformed pixels are multiplied where they are made: to store them would take longer than to make them again. The sums of 4
   channels need 24 registers. from: the six lines of each parity. m: [4][6][8][VL]. */
INLINE void stem_few(const int channels, const float *const (*from)[6], int length, int t, const float *u, float *m) {
    UNROLL for (int k = 0; k < 4; k++) {
        V sum[6][FEW];
        UNROLL for (int j = 0; j < 6; j++)
            UNROLL for (int c = 0; c < channels; c++) sum[j][c] = splat(0);
        for (int i = 0; i < 12; i++) {
            const float *const *lines = from[i / 6];
            int place = i % 6 * 2 * length + t;
            V tile[6], product[6];
            UNROLL for (int j = 0; j < 6; j++) tile[j] = column_in(k, lines[j] + place, lines[j] + place + length);
            lines_to(tile, product);
            UNROLL for (int j = 0; j < 6; j++)
                UNROLL for (int c = 0; c < channels; c++) sum[j][c] = fma_(splat(u[((k * 6 + j) * 12 + i) * 8 + c]), product[j], sum[j][c]);
        }
        UNROLL for (int j = 0; j < 6; j++)
            UNROLL for (int c = 0; c < channels; c++) store(m + ((k * 6 + j) * 8 + c) * VL, sum[j][c]);
    }
}
KERNEL void stem_1(const float *const (*from)[6], int length, int t, const float *u, float *m) { stem_few(1, from, length, t, u, m); }
KERNEL void stem_2(const float *const (*from)[6], int length, int t, const float *u, float *m) { stem_few(2, from, length, t, u, m); }
#if FEW == 4
KERNEL void stem_4(const float *const (*from)[6], int length, int t, const float *u, float *m) { stem_few(4, from, length, t, u, m); }
#define STEM_FEW(channels) ((channels) == 1 ? stem_1 : (channels) == 2 ? stem_2 : stem_4)
#else
#define STEM_FEW(channels) ((channels) == 1 ? stem_1 : stem_2)
#endif

/* Scratch, in lines of `length` floats that begin 16 floats in: 2 x 6 x 12 lines of pixels (parity of the row, row mod 6, line), 4 x 6 x 12 lines
   transformed over columns and lines. */
INLINE void stem(int activation, const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out];
    int split = s->stride == 2, channels = split ? m->channels / 4 : m->channels, at = m->at, plane = m->plane, pitch = m->pitch;
    int picture = w->net->width, columns = picture / 4, length = (columns + 15) / 16 * 16 + 32, rows = w->net->height / 2;
    float *pixels = w->scratch + 16, *d = pixels + 144 * length;
    float products[24 * 8 * 2 * VL] __attribute__((aligned(64)));
    const int32_t *taps = w->net->taps + s->taps;
    const float *lines[2][6]; /* of each parity of the row, the six that a tile reads */
    V slope = splat(w->weights[s->slope]);
    for (int y = y0, next = y0 - 1; y < y1; y += 4, next = y + 1) { /* next: first line that is not unpacked yet */
        for (int q = 0; q < 2; q++) {
            float *ring = pixels + q * 72 * length;
            for (int row = next; row < y + 5; row++) {
                float *to = ring + (row + 6) % 6 * 12 * length;
                if (w->row + row < 0 || w->row + row >= rows) memset(to - 16, 0, (size_t)(12 * length) * sizeof(float));
                else unpack(w->image + (size_t)(2 * (w->row + row) + q) * (size_t)picture * 3, columns, to, length);
                for (int i = 0; i < 12; i++) to[i * length - 1] = to[i * length + columns] = 0; /* behind the border of the picture */
            }
            for (int k = 0; k < 6; k++) lines[q][k] = ring + (y + 5 + k) % 6 * 12 * length;
        }
        if (channels <= FEW) {
            float *out = w->arena + at + (split ? y / 2 * pitch : y * pitch);
            for (int t = 0; t < columns; t += VL) {
                int from = t + VL <= columns ? t : columns - VL;
                STEM_FEW(channels)((const float *const (*)[6])lines, length, from, w->weights + s->weights, products);
                stem_out(activation, products, VL, channels, w->weights + s->bias, slope, out + (split ? from : 2 * from), plane, pitch, split);
            }
            continue;
        }
        for (int i = 0; i < 12; i++) { /* (parity of the row * 3 + channel) * 2 + parity of the column */
            const float *const *from = (const float *const *)lines[i / 6];
            for (int t = 0; t < columns; t += VL) {
                int place = i % 6 * 2 * length + t;
                UNROLL for (int k = 0; k < 4; k++) {
                    V tile[6];
                    UNROLL for (int j = 0; j < 6; j++) tile[j] = column_in(k, from[j] + place, from[j] + place + length);
                    lines_in(tile, d + k * 72 * length + i * length + t, 12 * length);
                }
            }
        }
        for (int c = 0; c < channels; c += 8) {
            const float *u = w->weights + s->weights + c * 24 * 12, *bias = w->weights + s->bias + c;
            float *out = w->arena + at + (split ? 4 * c * plane + y / 2 * pitch : c * plane + y * pitch);
            int left = channels - c < 8 ? channels - c : 8;
            for (int t = 0; t < columns;) { /* by two vectors, whose products stay in the first cache */
                int vectors = next_vectors(columns - t, columns, 2), width = vectors * VL, from = t + width <= columns ? t : columns - width;
                for (int k = 0; k < 24; k++)
                    PICK(raw, vectors)(d + k * 12 * length + from, taps, 12, u + k * 96, bias, 0, products + k * 8 * width, width, NULL, 0, left);
                stem_out(activation, products, width, left, bias, slope, out + (split ? from : 2 * from), plane, pitch, split);
                t = from + width;
            }
        }
    }
}
KERNEL void stem_silu(const Work *w, const Step *s, int y0, int y1) { stem(SILU, w, s, y0, y1); }
KERNEL void stem_linear(const Work *w, const Step *s, int y0, int y1) { stem(LINEAR, w, s, y0, y1); }
KERNEL void stem_other(const Work *w, const Step *s, int y0, int y1) { stem(s->activation, w, s, y0, y1); }
static void stem_step(const Work *w, const Step *s, int y0, int y1) {
    if (ACTIVATED_BY(s, SILU)) stem_silu(w, s, y0, y1);
    else if (ACTIVATED_BY(s, LINEAR)) stem_linear(w, s, y0, y1);
    else if (ACTIVATIONS & ~(1u << SILU | 1u << LINEAR)) stem_other(w, s, y0, y1);
}
