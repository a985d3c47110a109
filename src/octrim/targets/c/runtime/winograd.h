/* Winograd's F(4, 3) over lines: four lines of results from six lines of pixels by six products per tap instead of twelve. */
INLINE void lines_to(const V *p, V *to) {
    V t0 = fma_(splat(-4.0f), p[1], p[3]), t1 = fma_(splat(-4.0f), p[2], p[4]), t2 = p[3] - p[1], t3 = p[4] - p[2];
    to[0] = fma_(splat(4.0f), p[0], fma_(splat(-5.0f), p[2], p[4]));
    to[1] = t1 + t0;
    to[2] = t1 - t0;
    to[3] = fma_(splat(2.0f), t2, t3);
    to[4] = fma_(splat(-2.0f), t2, t3);
    to[5] = fma_(splat(4.0f), p[1], fma_(splat(-5.0f), p[3], p[5]));
}
INLINE void lines_in(const V *p, float *to, int step) {
    V lines[6];
    lines_to(p, lines);
    UNROLL for (int k = 0; k < 6; k++) store(to + k * step, lines[k]);
}
INLINE void lines_out(const V *m, V bias, V *y) {
    V s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4], sum = s + bias, difference = d + bias;
    y[0] = m[0] + s2 + sum;
    y[1] = fma_(splat(2.0f), d2, difference);
    y[2] = fma_(splat(4.0f), s2, sum);
    y[3] = fma_(splat(8.0f), d2, m[5] + difference);
}

/* Transforms the products of `left` channels, m: [6][8][width], back to four lines of results. */
INLINE void winograd_out(int activation, const float *m, int width, int left, const float *bias, V slope, float *out, int plane, int pitch,
                         const float *add, int add_plane) {
    for (int c = 0; c < left; c++)
        for (int j = 0; j < width; j += VL) {
            V products[6], y[4];
            UNROLL for (int k = 0; k < 6; k++) products[k] = load(m + (k * 8 + c) * width + j);
            lines_out(products, splat(bias[c]), y);
            UNROLL for (int i = 0; i < 4; i++) {
                y[i] = activated(activation, slope, y[i]);
                if (add) y[i] += load(add + c * add_plane + i * pitch + j);
                store(out + c * plane + i * pitch + j, y[i]);
            }
        }
}

/* Copies a row of n floats, and adds another one unless that is NULL. */
static void store_row(float *to, const float *from, const float *add, int n) {
    if (n >= VL)
        for (int x = 0; x < n; x += VL) {
            int at = x + VL <= n ? x : n - VL;
            store(to + at, add ? load(from + at) + load(add + at) : load(from + at));
        }
    else
        for (int x = 0; x < n; x++) to[x] = add ? from[x] + add[x] : from[x];
}

/* 3 x 3, stride 1. `tiles` times four lines are one line behind the other, so that narrow maps fill vectors, too; their results go through a buffer.
   Lines below y1 are zero, and their results thrown away. d: [6][inputs][line], the transformed pixels; taps point into it, and behind them stand the
   planes of the inputs. */
INLINE void winograd(int activation, const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out], *r = s->add < 0 ? NULL : &w->net->maps[s->add];
    const int32_t *taps = w->net->taps + s->taps, *planes = taps + s->count;
    int inputs = s->count / 3, width = m->width, pitch = m->pitch, line = ((s->tiles - 1) * pitch + width + 2 + 31) / 16 * 16;
    float *d = w->scratch, *rows = d + 6 * inputs * line, products[6 * 8 * PV * VL] __attribute__((aligned(64)));
    V slope = splat(w->weights[s->slope]);
    for (int y = y0; y < y1; y += 4 * s->tiles) {
        int tiles = (y1 - y + 3) / 4 < s->tiles ? (y1 - y + 3) / 4 : s->tiles, n = (tiles - 1) * pitch + width;
        for (int tile = 0; tile < tiles; tile++) {
            int known = y1 - y - 4 * tile + 2, end = tile == tiles - 1 ? width + 2 : pitch;
            for (int i = 0; i < inputs; i++)
                for (int x = 0; x < end; x += VL) {
                    const float *p = w->arena + planes[i] + (y + 4 * tile - 1) * pitch - 1 + x;
                    V lines[6];
                    UNROLL for (int k = 0; k < 6; k++) lines[k] = k < known ? load(p + k * pitch) : splat(0);
                    lines_in(lines, d + i * line + tile * pitch + x, inputs * line);
                }
        }
        int direct = s->tiles == 1 && y1 - y >= 4; /* four lines are written; fewer go through a buffer, so that what lies below them stays */
        for (int c = 0; c < m->channels; c += 8) {
            const float *u = w->weights + s->weights + c * 6 * s->count, *bias = w->weights + s->bias + c;
            float *out = w->arena + m->at + c * m->plane + y * pitch;
            const float *add = r ? w->arena + r->at + c * r->plane + y * pitch : NULL;
            int left = m->channels - c < 8 ? m->channels - c : 8, add_plane = r ? r->plane : 0;
            for (int x = 0; x < n;) {
                int vectors = next_vectors(n - x, n, PV), several = vectors * VL, at = x + several <= n ? x : n - several;
                for (int k = 0; k < 6; k++)
                    PICK(raw, vectors)(d + k * inputs * line + at, taps, s->count, u + k * s->count * 8, bias, 0, products + k * 8 * several, several, NULL, 0, left);
                if (direct) winograd_out(activation, products, several, left, bias, slope, out + at, m->plane, pitch, add ? add + at : NULL, add_plane);
                else winograd_out(activation, products, several, left, bias, slope, rows + at, 4 * line, line, NULL, 0);
                x = at + several;
            }
            for (int k = 0; k < left && !direct; k++)
                for (int i = 0; i < y1 - y && i < 4 * tiles; i++)
                    store_row(out + k * m->plane + i * pitch, rows + (4 * k + i % 4) * line + i / 4 * pitch, add ? add + k * add_plane + i * pitch : NULL, width);
        }
    }
}
KERNEL void winograd_silu(const Work *w, const Step *s, int y0, int y1) { winograd(SILU, w, s, y0, y1); }
KERNEL void winograd_linear(const Work *w, const Step *s, int y0, int y1) { winograd(LINEAR, w, s, y0, y1); }
KERNEL void winograd_other(const Work *w, const Step *s, int y0, int y1) { winograd(s->activation, w, s, y0, y1); }
static void winograd_step(const Work *w, const Step *s, int y0, int y1) {
    if (ACTIVATED_BY(s, SILU)) winograd_silu(w, s, y0, y1);
    else if (ACTIVATED_BY(s, LINEAR)) winograd_linear(w, s, y0, y1);
    else if (ACTIVATIONS & ~(1u << SILU | 1u << LINEAR)) winograd_other(w, s, y0, y1);
}
