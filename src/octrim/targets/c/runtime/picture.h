/* The picture's bytes, red, green, blue, as floats. */

/* Makes 12 lines of n floats of a line of 4 n pixels, one per channel, parity of the column and half (columns 4t, 4t + 1: half 0; 4t + 2, 4t + 3: half 1).
   Lines are `length` floats apart and start at `to`; line (channel * 2 + parity) * 2 + half has the bytes 12 t + 3 (2 half + parity) + channel. */
static void unpack(const uint8_t *from, int n, float *to, int length) {
    int t = 0;
#if VL == 16 && defined(__AVX512VBMI__)
#define EVERY_12TH(k) k, k + 12, k + 24, k + 36, k + 48, k + 60, k + 72, k + 84, k + 96, k + 108, k + 120, k + 132, k + 144, k + 156, k + 168, k + 180
    static const uint8_t places[3][64] = {{EVERY_12TH(0), EVERY_12TH(1), EVERY_12TH(2), EVERY_12TH(3)},
                                          {EVERY_12TH(4), EVERY_12TH(5), EVERY_12TH(6), EVERY_12TH(7)},
                                          {EVERY_12TH(8), EVERY_12TH(9), EVERY_12TH(10), EVERY_12TH(11)}};
    static const int lines[12] = {0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11};
    for (; t + 16 <= n; t += 16) {
        __m512i a = _mm512_loadu_si512(from + 12 * t), b = _mm512_loadu_si512(from + 12 * t + 64), c = _mm512_loadu_si512(from + 12 * t + 128);
        UNROLL for (int g = 0; g < 3; g++) {
            __m512i place = _mm512_loadu_si512(places[g]), p = _mm512_permutex2var_epi8(a, place, b);
            p = _mm512_mask_permutexvar_epi8(p, _mm512_movepi8_mask(place), place, c);
            float *o = to + t;
            _mm512_storeu_ps(o + lines[4 * g] * length, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(p))));
            _mm512_storeu_ps(o + lines[4 * g + 1] * length, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(p, 1))));
            _mm512_storeu_ps(o + lines[4 * g + 2] * length, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(p, 2))));
            _mm512_storeu_ps(o + lines[4 * g + 3] * length, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(p, 3))));
        }
    }
#elif defined(__SSE4_1__)
    __m128i places[3][3]; /* third of 48 bytes, channel: four bytes for each column mod 4 */
    for (int part = 0; part < 3; part++)
        for (int c = 0; c < 3; c++) {
            uint8_t place[16];
            for (int i = 0; i < 16; i++) {
                int k = 12 * (i % 4) + 3 * (i / 4) + c - 16 * part;
                place[i] = k >= 0 && k < 16 ? (uint8_t)k : 128;
            }
            places[part][c] = _mm_loadu_si128((const void *)place);
        }
    for (; t + 4 <= n; t += 4) {
        const uint8_t *s = from + 12 * t;
        __m128i p = _mm_loadu_si128((const void *)s), q = _mm_loadu_si128((const void *)(s + 16)), r = _mm_loadu_si128((const void *)(s + 32));
        for (int c = 0; c < 3; c++) {
            __m128i z = _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(p, places[0][c]), _mm_shuffle_epi8(q, places[1][c])), _mm_shuffle_epi8(r, places[2][c]));
            float *o = to + c * 4 * length + t;
            _mm_storeu_ps(o, _mm_cvtepi32_ps(_mm_cvtepu8_epi32(z)));
            _mm_storeu_ps(o + 2 * length, _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_srli_si128(z, 4))));
            _mm_storeu_ps(o + length, _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_srli_si128(z, 8))));
            _mm_storeu_ps(o + 3 * length, _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_srli_si128(z, 12))));
        }
    }
#elif defined(__aarch64__)
    for (; t + 4 <= n; t += 4) {
        uint8x16x3_t colours = vld3q_u8(from + 12 * t);
        for (int c = 0; c < 3; c++) {
            uint8x8x2_t parity = vuzp_u8(vget_low_u8(colours.val[c]), vget_high_u8(colours.val[c]));
            for (int q = 0; q < 2; q++) {
                uint8x8x2_t half = vuzp_u8(parity.val[q], parity.val[q]);
                for (int h = 0; h < 2; h++)
                    vst1q_f32(to + ((c * 2 + q) * 2 + h) * length + t, vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(half.val[h])))));
            }
        }
    }
#endif
    for (; t < n; t++)
        for (int c = 0; c < 3; c++)
            for (int q = 0; q < 2; q++)
                for (int h = 0; h < 2; h++) to[((c * 2 + q) * 2 + h) * length + t] = from[12 * t + 3 * (2 * h + q) + c];
}

#define OF_A_BYTE (1.442695041f / 255.0f) /* log2(e) / 255: maps carry their values times log2(e) */

/* Turns bytes into three planes, for networks whose first layer is not the usual stem. */
static void image_planes(const Work *w, const Map *m, int y0, int y1) {
    for (int c = 0; c < 3; c++)
        for (int y = y0; y < y1; y++) {
            float *d = w->arena + m->at + c * m->plane + y * m->pitch;
            const uint8_t *p = w->image + (size_t)(w->row + y) * (size_t)m->width * 3 + c;
            for (int x = 0; x < m->width; x++) d[x] = (float)p[3 * x] * OF_A_BYTE;
        }
}

/* The same where a convolution of stride 2 reads them: planes split by the parity of row and column. Rows are those of the result, which has half the
   picture's. Scratch: 12 lines. */
static void image_by_parity(const Work *w, const Map *m, int y0, int y1) {
    int columns = m->width / 2; /* of four pixels */
    for (int y = 2 * y0; y < 2 * y1; y++) {
        unpack(w->image + (size_t)(2 * w->row + y) * (size_t)columns * 12, columns, w->scratch, columns);
        for (int i = 0; i < 6; i++) { /* channel * 2 + parity of the column */
            const float *first = w->scratch + 2 * i * columns, *second = first + columns;
            float *d = w->arena + m->at + (i / 2 * 4 + (y & 1) * 2 + i % 2) * m->plane + (y >> 1) * m->pitch;
            for (int t = 0; t < columns; t += VL) {
                int at = t + VL <= columns ? t : columns - VL;
                V a = load(first + at), b = load(second + at);
                store(d + 2 * at, low_of(a, b) * splat(OF_A_BYTE));
                store(d + 2 * at + VL, high_of(a, b) * splat(OF_A_BYTE));
            }
        }
    }
}

static void image_step(const Work *w, const Step *s, int y0, int y1) {
    const Map *m = &w->net->maps[s->out];
    if (s->stride == 2) image_by_parity(w, m, y0, y1);
    else image_planes(w, m, y0, y1);
}
