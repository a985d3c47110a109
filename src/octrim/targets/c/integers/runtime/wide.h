/*
 * Convolutions on processors with vectors of bytes: 8 channels of several pixels at once, the same integers as the plain loops. 8 bytes of the input go to
 * all channels and are multiplied by as many bytes of weights of each; a channel has two sums, of the first four bytes and of the others. AVX-VNNI and
 * AVX-512 VNNI multiply unsigned by signed bytes, ARM signed by signed ones; AVX2 does it in several instructions where no weight is -128.
 */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX512BW__)
#define WIDE 512
#define UNSIGNED 1
#elif defined(__AVX2__) && (defined(__AVXVNNI__) || @narrow@)
#define WIDE 256
#ifdef __AVXVNNI__
#define UNSIGNED 1
#else
#define UNSIGNED 0
#endif
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define WIDE 128
#define UNSIGNED 0
#endif

#ifdef WIDE
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
/* Pixels of one block of 8 channels, and of two: as many sums as registers hold. */
#if WIDE == 512
#define PIXELS 8
#define PIXELS_OF_TWO 8
#else
#define PIXELS 4
#define PIXELS_OF_TWO 2
#endif
enum { MOST_LINES = @lines@, MOST_CHANNELS = @most_channels@, MOST_TAPS = @most_taps@ };

#if WIDE == 512
#include <immintrin.h>

typedef __m512i Sums, Words; /* a channel has 64 bits */

INLINE Words words_of(const int8_t *p) { return _mm512_loadu_si512(p); }
INLINE Words splat(const uint8_t *p)
{
    long long eight;
    __builtin_memcpy(&eight, p, 8);
    return _mm512_set1_epi64(eight);
}
INLINE Sums sums_of(const int32_t *p) { return _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)p)); }

INLINE Sums dot(Sums sum, Words x, Words w, int positive)
{
    (void)positive;
#ifdef __clang__
    return _mm512_dpbusd_epi32(sum, x, w);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w)); /* behind the intrinsic gcc copies every sum */
    return sum;
#endif
}

typedef struct {
    __m512i multiplier, half, shift; /* half: with the zero point in front of the shift */
    __m128i low, high;
} Scaling;

INLINE Scaling scaling_of(const Step *s, int32_t channel)
{
    __m512i one = _mm512_set1_epi64(1), shift = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(shifts + channel)));
    __m512i half = _mm512_add_epi64(_mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one)), _mm512_sllv_epi64(_mm512_set1_epi64(s->zero), shift));
    return (Scaling){sums_of(multipliers + channel), half, shift, _mm_set1_epi8((char)s->low), _mm_set1_epi8((char)s->high)};
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it, as bytes. */
INLINE void put(Sums sum, const Scaling *q, int8_t *y)
{
    __m512i all = _mm512_add_epi64(sum, _mm512_srli_epi64(sum, 32)); /* only the lower halves are multiplied */
    __m512i v = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(all, q->multiplier), q->half), q->shift);
    __m128i bytes = _mm512_cvtsepi64_epi8(v);
    _mm_storel_epi64((__m128i *)(void *)y, _mm_min_epi8(_mm_max_epi8(bytes, q->low), q->high));
}
#elif WIDE == 256
#include <immintrin.h>

typedef struct {
    __m256i half[2];
} Sums; /* four channels of 64 bits each */
typedef Sums Words;

INLINE __m256i at(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE Words words_of(const int8_t *p) { return (Words){{at(p), at(p + 32)}}; }
INLINE Words splat(const uint8_t *p)
{
    long long eight;
    __builtin_memcpy(&eight, p, 8);
    __m256i all = _mm256_set1_epi64x(eight);
    return (Words){{all, all}};
}
INLINE Sums sums_of(const int32_t *p)
{
    const __m128i *four = (const __m128i *)(const void *)p;
    return (Sums){{_mm256_cvtepu32_epi64(_mm_loadu_si128(four)), _mm256_cvtepu32_epi64(_mm_loadu_si128(four + 1))}};
}

INLINE Sums dot(Sums sum, Words x, Words w, int positive)
{
    UNROLL for (int i = 0; i < 2; i++) {
#if UNSIGNED
        (void)positive;
        sum.half[i] = _mm256_dpbusd_avx_epi32(sum.half[i], x.half[i], w.half[i]);
#else
        __m256i one = x.half[i], other = w.half[i];
        __m256i pairs = positive ? _mm256_maddubs_epi16(one, other) : _mm256_maddubs_epi16(_mm256_abs_epi8(one), _mm256_sign_epi8(other, one));
        sum.half[i] = _mm256_add_epi32(sum.half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
    }
    return sum;
}

/* The shift is a logical one: 2^62 is added in front of it, and what that became is taken off behind, together with the zero point. */
typedef struct {
    __m256i multiplier[2], half[2], shift[2], zero, low, high;
} Scaling;

INLINE Scaling scaling_of(const Step *s, int32_t channel)
{
    uint64_t half[8], by[8];
    uint32_t zero[8];
    for (int i = 0; i < 8; i++) {
        int lane = (i & 1) + (i & 2) * 2 + (i & 4) / 2, shift = shifts[channel + i]; /* channels 0, 1, 4, 5, 2, 3, 6, 7 stand behind each other */
        by[i] = (uint64_t)shift;
        half[i] = ((uint64_t)1 << (shift ? shift - 1 : 0)) + ((uint64_t)1 << 62);
        zero[lane] = (uint32_t)s->zero - (uint32_t)((uint64_t)1 << (62 - shift));
    }
    Sums multiplier = sums_of(multipliers + channel);
    return (Scaling){{multiplier.half[0], multiplier.half[1]}, {at(half), at(half + 4)}, {at(by), at(by + 4)}, at(zero),
                     _mm256_set1_epi32(s->low), _mm256_set1_epi32(s->high)};
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it, as bytes. */
INLINE void put(Sums sum, const Scaling *q, int8_t *y)
{
    __m256 v[2];
    UNROLL for (int i = 0; i < 2; i++) {
        __m256i all = _mm256_add_epi64(sum.half[i], _mm256_srli_epi64(sum.half[i], 32)); /* only the lower halves are multiplied */
        v[i] = _mm256_castsi256_ps(_mm256_srlv_epi64(_mm256_add_epi64(_mm256_mul_epi32(all, q->multiplier[i]), q->half[i]), q->shift[i]));
    }
    __m256i both = _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(v[0], v[1], 0x88)), q->zero);
    both = _mm256_permute4x64_epi64(_mm256_min_epi32(_mm256_max_epi32(both, q->low), q->high), 0xD8);
    __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    _mm_storel_epi64((__m128i *)(void *)y, _mm_packs_epi16(narrow, narrow));
}
#else
#include <arm_neon.h>

typedef struct {
    int32x4_t part[4];
} Sums; /* two channels of 64 bits each */
typedef struct {
    int8x16_t part[4];
} Words;

INLINE Words words_of(const int8_t *p) { return (Words){{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}}; }
INLINE Words splat(const uint8_t *p)
{
    uint64_t eight;
    __builtin_memcpy(&eight, p, 8);
    int8x16_t all = vreinterpretq_s8_u64(vdupq_n_u64(eight));
    return (Words){{all, all, all, all}};
}
INLINE Sums sums_of(const int32_t *p)
{
    Sums sum;
    for (int i = 0; i < 4; i++) sum.part[i] = vreinterpretq_s32_u64(vmovl_u32(vreinterpret_u32_s32(vld1_s32(p + 2 * i))));
    return sum;
}

INLINE Sums dot(Sums sum, Words x, Words w, int positive)
{
    (void)positive;
    UNROLL for (int i = 0; i < 4; i++) sum.part[i] = vdotq_s32(sum.part[i], x.part[i], w.part[i]);
    return sum;
}

typedef struct {
    int32x4_t multiplier[2], zero, low, high;
    int64x2_t shift[4]; /* to the left, so they are negative; the instruction rounds as `scaled` does */
} Scaling;

INLINE Scaling scaling_of(const Step *s, int32_t channel)
{
    Scaling found = {.zero = vdupq_n_s32(s->zero), .low = vdupq_n_s32(s->low), .high = vdupq_n_s32(s->high)};
    for (int i = 0; i < 2; i++) found.multiplier[i] = vld1q_s32(multipliers + channel + 4 * i);
    for (int i = 0; i < 4; i++) {
        int64_t by[2] = {-(int64_t)shifts[channel + 2 * i], -(int64_t)shifts[channel + 2 * i + 1]};
        found.shift[i] = vld1q_s64(by);
    }
    return found;
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it, as bytes. */
INLINE void put(Sums sum, const Scaling *q, int8_t *y)
{
    int16x4_t found[2];
    UNROLL for (int i = 0; i < 2; i++) {
        int32x4_t all = vpaddq_s32(sum.part[2 * i], sum.part[2 * i + 1]);
        int64x2_t low = vmull_s32(vget_low_s32(all), vget_low_s32(q->multiplier[i])), high = vmull_high_s32(all, q->multiplier[i]);
        int32x4_t v = vcombine_s32(vmovn_s64(vrshlq_s64(low, q->shift[2 * i])), vmovn_s64(vrshlq_s64(high, q->shift[2 * i + 1])));
        found[i] = vmovn_s32(vminq_s32(vmaxq_s32(vaddq_s32(v, q->zero), q->low), q->high));
    }
    vst1_s8(y, vmovn_s16(vcombine_s16(found[0], found[1])));
}
#endif

/* The blocks of up to 8 channels that are computed together: one, or two of which the first is full. */
typedef struct {
    const int8_t *w[2];
    int32_t step[2]; /* bytes from 8 bytes of a channel to its next ones */
    const int32_t *start[2];
    Scaling scaling[2];
    int count[2]; /* channels */
} Blocks;

/* The input of a row: taps[t] is where the 8 bytes with number t of the window of the first pixel stand, behind `from`. next: bytes to the next pixel. */
typedef struct {
    const uint8_t *from;
    const int32_t *taps;
    int count, next, width, pitch;
} Input;

/* `pixels` output pixels from `place` on by one or two blocks. */
INLINE void block(const int pixels, const int blocks, const int positive, const Input *in, int place, const Blocks *b, int8_t *y)
{
    Sums sums[2][PIXELS];
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int i = 0; i < blocks; i++) sums[i][p] = sums_of(b->start[i]);
    const int8_t *w = b->w[0], *v = b->w[1];
    const uint8_t *first = in->from + place * in->next;
    const intptr_t next[4] = {0, in->next, 2 * (intptr_t)in->next, 3 * (intptr_t)in->next}; /* no other way do compilers leave these in registers */
    const int32_t *taps = in->taps, *end = taps + in->count;
    do {
        const uint8_t *x[2] = {first + *taps, first + *taps + 2 * next[2]};
        Words one = words_of(w), other = blocks == 2 ? words_of(v) : one;
        UNROLL for (int p = 0; p < pixels; p++) {
            Words all = splat(x[p / 4] + next[p % 4]);
            sums[0][p] = dot(sums[0][p], all, one, positive);
            if (blocks == 2) sums[1][p] = dot(sums[1][p], all, other, positive);
        }
        w += b->step[0];
        if (blocks == 2) v += b->step[1];
    } while (++taps != end);
    y += place * in->pitch;
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int i = 0; i < blocks; i++) {
            int8_t *to = y + p * in->pitch + 8 * i, few[8];
            if (b->count[i] == 8) put(sums[i][p], &b->scaling[i], to);
            else {
                put(sums[i][p], &b->scaling[i], few);
                for (int c = 0; c < b->count[i]; c++) to[c] = few[c];
            }
        }
}

/* All pixels of an output row; the last block is moved back to end with the row, and what two blocks share is computed twice. */
INLINE void row_of(const int blocks, const int positive, const Input *in, const Blocks *b, int8_t *y)
{
    const int most = blocks == 2 ? PIXELS_OF_TWO : PIXELS;
    if (in->width < most)
        for (int p = 0; p < in->width; p++) block(1, blocks, positive, in, p, b, y);
    else
        for (int p = 0; p < in->width; p += most) block(most, blocks, positive, in, p + most > in->width ? in->width - most : p, b, y);
}
static __attribute__((noinline)) void one_block(const Input *in, const Blocks *b, int8_t *y) { row_of(1, 0, in, b, y); }
static __attribute__((noinline)) void two_blocks(const Input *in, const Blocks *b, int8_t *y) { row_of(2, 0, in, b, y); }
static __attribute__((noinline)) void one_positive(const Input *in, const Blocks *b, int8_t *y) { row_of(1, 1, in, b, y); }
static __attribute__((noinline)) void two_positive(const Input *in, const Blocks *b, int8_t *y) { row_of(2, 1, in, b, y); }

/* A line of the input with its padding; the highest bit of every byte is turned where `turned` is 128, which makes signed bytes of unsigned ones. */
static void padded_line(const Step *s, const uint8_t *x, int line, uint8_t turned, uint8_t *to)
{
    int32_t side = s->padding * s->in_channels, count = s->in_width * s->in_channels, all = count + 2 * side;
    if (line < 0 || line >= s->in_height) {
        for (int32_t i = 0; i < all; i++) to[i] = turned;
        return;
    }
    x += (int32_t)line * count;
    for (int32_t i = 0; i < side; i++) to[i] = to[side + count + i] = turned;
    to += side;
    for (int32_t i = 0; i < count; i++) to[i] = x[i] ^ turned;
}

/* What follows: 256 values, of which -128 has the first. */
static void looked_up(int8_t *y, int32_t count, const int8_t *table)
{
    int32_t i = 0;
#ifdef __AVX512VBMI__
    __m512i parts[4], top = _mm512_set1_epi8(-128);
    for (int k = 0; k < 4; k++) parts[k] = _mm512_loadu_si512(table + 64 * k);
    for (; i < count; i += 64) {
        __mmask64 mask = count - i < 64 ? ((uint64_t)1 << (count - i)) - 1 : ~(uint64_t)0;
        __m512i at = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, y + i), top);
        __m512i low = _mm512_permutex2var_epi8(parts[0], at, parts[1]), high = _mm512_permutex2var_epi8(parts[2], at, parts[3]);
        _mm512_mask_storeu_epi8(y + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), low, high));
    }
#endif
    for (; i < count; i++) y[i] = table[y[i] + 128];
}

/* Whether the convolution could be done here. */
static int wide_convolution(const Step *s, const uint8_t *x, int8_t *y)
{
    int32_t length = (s->in_width + 2 * s->padding) * s->in_channels + 8, eights = (s->words + 1) / 2;
    if (s->groups > 1 || s->kernel * length > MOST_LINES) return 0;
    uint8_t lines[MOST_LINES], turned = (UNSIGNED ? s->input >= 0 && !s->positive : s->input < 0) ? 128 : 0;
    int32_t start[MOST_CHANNELS + 8];
    int positive = s->input >= 0 && s->positive, direct = s->kernel == 1 && s->stride == 1 && s->padding == 0 && s->input >= 0 && !turned;
    int32_t taps[MOST_TAPS];
    Input in = {lines, taps, s->kernel * eights, s->stride * s->in_channels, s->width, s->pitch};
    Blocks blocks[(MOST_CHANNELS + 15) / 16];
    const int8_t *w = weights + s->weights;
    for (int c = 0; c < s->channels; c += 8) { /* a turned input is 128 too much or too little, and so are its sums */
        Blocks *b = &blocks[c / 16];
        int i = c / 8 % 2, left = s->channels - c, count = left < 8 ? left : 8;
        for (int k = 0; k < count; k++)
            if (shifts[s->values + c + k] > 54) return 0; /* the zero point would not fit in front of the shift */
        *(i ? &b->count[1] : &b->count[0]) = count;
        b->w[i] = w;
        b->step[i] = 8 * count;
        b->start[i] = start + c;
        b->scaling[i] = scaling_of(s, s->values + c);
        for (int k = 0; k < count; k++) {
            int32_t sum = 0;
            for (int t = 0; t < s->kernel * eights && turned; t++)
                for (int j = 0; j < 8; j++) sum += w[(t * count + k) * 8 + j];
            start[c + k] = biases[s->values + c + k] - (UNSIGNED ? 128 : -128) * sum;
        }
        for (int k = count; k < 8; k++) start[c + k] = 0;
        w += s->kernel * eights * 8 * count;
    }
    for (int row = 0, ready = 0; row < s->height; row++, y += (int32_t)s->width * s->pitch) {
        int top = row * s->stride;
        for (ready = ready < top ? top : ready; ready < top + s->kernel && !direct; ready++)
            padded_line(s, x, ready - s->padding, turned, lines + ready % s->kernel * length);
        if (direct) in.from = x + (int32_t)row * s->in_width * s->in_channels;
        for (int i = 0; i < s->kernel; i++)
            for (int k = 0; k < eights; k++) taps[i * eights + k] = (top + i) % s->kernel * length + 8 * k;
        for (int c = 0; c < s->channels; c += 16) {
            const Blocks *b = &blocks[c / 16];
            if (s->channels - c > 8) (positive ? two_positive : two_blocks)(&in, b, y + c);
            else (positive ? one_positive : one_block)(&in, b, y + c);
        }
        if (s->table >= 0) looked_up(y, (int32_t)s->width * s->channels, tables[s->table]); /* these have no pitch beyond their channels */
    }
    return 1;
}
#endif
