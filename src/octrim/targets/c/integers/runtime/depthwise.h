/*
 * Depthwise convolutions on processors with vectors of bytes. An output row is one line of numbers, pixel by pixel and in a pixel channel by channel, and so
 * is what every tap of the window reads for it: 16 numbers of four such lines are multiplied at once. Weights, biases and scalings go round with the channels.
 * With a stride, a line of the input is laid out in `stride` parts, of which part k has the pixels k, k + stride and so on.
 */
enum { MOST_DEPTHWISE_LINES = @lines@, MOST_DEPTHWISE_WEIGHTS = @weights@, MOST_DEPTHWISE_ROW = @row@ };
enum { MOST_DEPTHWISE_CHANNELS = @channels@, MOST_DEPTHWISE_PERIOD = @period@, MOST_DEPTHWISE_TAPS = @taps@ };

/* Sums of 16 numbers, each with four taps' numbers times their weights added. w: [16][4]. */
#if WIDE == 512 && defined(__AVX512VBMI__)
typedef __m512i Sixteen;
INLINE Sixteen sixteen_of(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void stored(Sixteen sums, int32_t *to) { _mm512_storeu_si512(to, sums); }
INLINE __m128i taken(const int8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }

INLINE Sixteen with_taps(Sixteen sums, const int8_t *const *taps, int32_t place, const int8_t *w, int positive)
{
    static const uint8_t order[64] = {0, 16, 32, 48, 1, 17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21, 37, 53, 6,  22, 38, 54, 7,  23, 39, 55,
                                      8, 24, 40, 56, 9, 25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
    __m512i all = _mm512_inserti32x4(_mm512_castsi128_si512(taken(taps[0] + place)), taken(taps[1] + place), 1);
    all = _mm512_inserti32x4(_mm512_inserti32x4(all, taken(taps[2] + place), 2), taken(taps[3] + place), 3);
    return dot(sums, _mm512_permutexvar_epi8(_mm512_loadu_si512(order), all), _mm512_loadu_si512(w), positive, 0);
}
#elif WIDE > 128
typedef struct {
    __m256i half[2];
} Sixteen;
INLINE __m256i eight_at(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m128i taken(const int8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
INLINE Sixteen sixteen_of(const int32_t *p) { return (Sixteen){{eight_at(p), eight_at(p + 8)}}; }
INLINE void stored(Sixteen sums, int32_t *to)
{
    UNROLL for (int i = 0; i < 2; i++) _mm256_storeu_si256((__m256i *)(void *)(to + 8 * i), sums.half[i]);
}

INLINE Sixteen with_taps(Sixteen sums, const int8_t *const *taps, int32_t place, const int8_t *w, int positive)
{
    __m128i a = taken(taps[0] + place), b = taken(taps[1] + place), c = taken(taps[2] + place), d = taken(taps[3] + place);
    __m128i low[2] = {_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d)}, high[2] = {_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d)};
    __m256i x[2] = {_mm256_set_m128i(_mm_unpackhi_epi16(low[0], low[1]), _mm_unpacklo_epi16(low[0], low[1])),
                    _mm256_set_m128i(_mm_unpackhi_epi16(high[0], high[1]), _mm_unpacklo_epi16(high[0], high[1]))};
#if WIDE == 512
    (void)positive;
    UNROLL for (int i = 0; i < 2; i++) sums.half[i] = _mm256_dpbusd_epi32(sums.half[i], x[i], eight_at(w + 32 * i));
    return sums;
#else
    Sums found = dot((Sums){{sums.half[0], sums.half[1]}}, (Words){{x[0], x[1]}}, words_of(w), positive, 0);
    return (Sixteen){{found.half[0], found.half[1]}};
#endif
}
#else
typedef Sums Sixteen;
INLINE Sixteen sixteen_of(const int32_t *p)
{
    Sixteen sums;
    UNROLL for (int i = 0; i < 4; i++) sums.part[i] = vld1q_s32(p + 4 * i);
    return sums;
}
INLINE void stored(Sixteen sums, int32_t *to)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_s32(to + 4 * i, sums.part[i]);
}

INLINE Sixteen with_taps(Sixteen sums, const int8_t *const *taps, int32_t place, const int8_t *w, int positive)
{
    int8x16_t a = vld1q_s8(taps[0] + place), b = vld1q_s8(taps[1] + place), c = vld1q_s8(taps[2] + place), d = vld1q_s8(taps[3] + place);
#ifdef __ARM_FEATURE_DOTPROD
    int16x8_t low[2] = {vreinterpretq_s16_s8(vzip1q_s8(a, b)), vreinterpretq_s16_s8(vzip1q_s8(c, d))};
    int16x8_t high[2] = {vreinterpretq_s16_s8(vzip2q_s8(a, b)), vreinterpretq_s16_s8(vzip2q_s8(c, d))};
    Words x = {{vreinterpretq_s8_s16(vzip1q_s16(low[0], low[1])), vreinterpretq_s8_s16(vzip2q_s16(low[0], low[1])),
                vreinterpretq_s8_s16(vzip1q_s16(high[0], high[1])), vreinterpretq_s8_s16(vzip2q_s16(high[0], high[1]))}};
    return dot(sums, x, words_of(w), positive, 0);
#else /* two products fit 16 bits, because no weight is -128 */
    int8x16x4_t by = vld4q_s8(w);
    int16x8_t one = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(by.val[0])), vget_low_s8(b), vget_low_s8(by.val[1]));
    int16x8_t two = vmlal_high_s8(vmull_high_s8(a, by.val[0]), b, by.val[1]);
    int16x8_t other = vmlal_s8(vmull_s8(vget_low_s8(c), vget_low_s8(by.val[2])), vget_low_s8(d), vget_low_s8(by.val[3]));
    int16x8_t last = vmlal_high_s8(vmull_high_s8(c, by.val[2]), d, by.val[3]);
    (void)positive;
    sums.part[0] = vaddw_s16(vaddw_s16(sums.part[0], vget_low_s16(one)), vget_low_s16(other));
    sums.part[1] = vaddw_high_s16(vaddw_high_s16(sums.part[1], one), other);
    sums.part[2] = vaddw_s16(vaddw_s16(sums.part[2], vget_low_s16(two)), vget_low_s16(last));
    sums.part[3] = vaddw_high_s16(vaddw_high_s16(sums.part[3], two), last);
    return sums;
#endif
}
#endif

INLINE void parted(const uint8_t *from, int32_t pixels, int32_t stride, uint8_t *to, int32_t part, int channels)
{
    for (int32_t k = 0; k < stride; k++)
        for (int32_t column = k, place = 0; column < pixels; column += stride, place++)
            copied((int8_t *)to + k * part + place * channels, (const int8_t *)from + column * channels, (size_t)channels);
}

/* A line of the input with its padding, in parts of `part` bytes. turned: as padded_line has it. Counts of thin layers are known to the compiler. */
static void parted_line(const Step *s, const uint8_t *x, int line, uint8_t turned, uint8_t *to, int32_t part)
{
    uint8_t whole[MOST_DEPTHWISE_LINES];
    int32_t pixels = s->in_width + 2 * s->padding;
    padded_line(s, x, line, turned, s->stride == 1 ? to : whole);
    if (s->stride == 1) return;
    if (s->channels == 4) parted(whole, pixels, s->stride, to, part, 4);
    else if (s->channels == 8) parted(whole, pixels, s->stride, to, part, 8);
    else if (s->channels == 12) parted(whole, pixels, s->stride, to, part, 12);
    else if (s->channels == 16) parted(whole, pixels, s->stride, to, part, 16);
    else parted(whole, pixels, s->stride, to, part, s->channels);
}

/* All numbers of an output row. */
INLINE void depthwise_row(const int positive, const int8_t *const *taps, int fours, int32_t numbers, int32_t channels, const int8_t *w, const int32_t *start,
                          const Scaling *scaling, int32_t period, int8_t *y)
{
    int32_t channel = 0, phase = 0, length = 4 * (channels + 16);
    for (int32_t p = 0; p < numbers; p += 16) {
        Sixteen sums = sixteen_of(start + channel);
        for (int t = 0; t < fours; t++) sums = with_taps(sums, taps + 4 * t, p, w + t * length + 4 * channel, positive);
        int32_t found[16];
        stored(sums, found);
        for (int32_t k = 0; k < 16; k += 8) {
            put(sums_of(found + k), &scaling[phase], 8, 0, y + p + k);
            phase = phase + 1 == period ? 0 : phase + 1;
        }
        channel += 16;
        while (channel >= channels) channel -= channels;
    }
}

/* Whether the convolution is a depthwise one, and could be done here. */
static int wide_depthwise(const Step *s, const uint8_t *x, int8_t *y)
{
    int32_t channels = s->channels, part = (s->in_width + 2 * s->padding + s->stride - 1) / s->stride * channels, length = channels + 16, period = 1;
    while (8 * period % channels) period++;
    int32_t line = part * s->stride, numbers = s->width * channels, count = s->kernel * s->kernel, fours = (count + 3) / 4;
    if (!depthwise(s) || s->input < 0 || s->kernel * line > MOST_DEPTHWISE_LINES || count > MOST_DEPTHWISE_TAPS) return 0;
    if (4 * fours * length > MOST_DEPTHWISE_WEIGHTS || numbers > MOST_DEPTHWISE_ROW) return 0;
    if (channels > MOST_DEPTHWISE_CHANNELS || period > MOST_DEPTHWISE_PERIOD) return 0;
    uint8_t lines[MOST_DEPTHWISE_LINES + 16], turned = UNSIGNED && !s->positive ? 128 : 0;
    int8_t w[MOST_DEPTHWISE_WEIGHTS], found[MOST_DEPTHWISE_ROW + 16];
    const int8_t *taps[MOST_DEPTHWISE_TAPS + 3];
    int32_t start[MOST_DEPTHWISE_CHANNELS + 16];
    Scaling scaling[MOST_DEPTHWISE_PERIOD]; /* of 8 numbers each, until they begin at channel 0 again */
    for (int32_t c = 0; c < channels; c++)
        if (shifts[s->values + c] > 54) return 0; /* the zero point would not fit in front of the shift */
    for (int32_t c = 0; c < length; c++) {
        int32_t from = c % channels;
        start[c] = biases[s->values + from] - (turned ? 128 * totals[s->values + from] : 0);
        for (int t = 0; t < 4 * fours; t++) w[(t / 4 * length + c) * 4 + t % 4] = t < count ? weights[s->weights + t * channels + from] : 0;
    }
    for (int32_t i = 0; i < period; i++) {
        int32_t factors[8];
        uint8_t by[8];
        for (int32_t k = 0; k < 8; k++) {
            factors[k] = multipliers[s->values + (8 * i + k) % channels];
            by[k] = shifts[s->values + (8 * i + k) % channels];
        }
        scaling[i] = scaling_of(s, factors, by);
    }
    for (int row = 0, ready = 0; row < s->height; row++, y += (int32_t)s->width * s->pitch) {
        int top = row * s->stride;
        for (ready = ready < top ? top : ready; ready < top + s->kernel; ready++)
            parted_line(s, x, ready - s->padding, turned, lines + ready % s->kernel * line, part);
        for (int t = 0; t < 4 * fours; t++) {
            int i = t < count ? t / s->kernel : 0, j = t < count ? t % s->kernel : 0; /* those beyond the window have no weight */
            taps[t] = (const int8_t *)lines + (top + i) % s->kernel * line + j % s->stride * part + j / s->stride * channels;
        }
        int8_t *to = s->pitch == channels && (s->height - 1 - row) * numbers >= 15 ? y : found; /* up to 15 numbers are written beyond the row */
        if (s->positive) depthwise_row(1, taps, fours, numbers, channels, w, start, scaling, period, to);
        else depthwise_row(0, taps, fours, numbers, channels, w, start, scaling, period, to);
        if (s->table >= 0) looked_up(to, numbers, tables[s->table]);
        if (to == y) continue;
        if (s->pitch == channels) __builtin_memcpy(y, found, (size_t)numbers);
        else
            for (int32_t p = 0; p < s->width; p++) copied(y + p * s->pitch, found + p * channels, (size_t)channels);
    }
    return 1;
}
#define WIDE_DEPTHWISE 1
