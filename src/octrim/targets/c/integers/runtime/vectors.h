/*
 * 8 channels as a vector, by processor: the products of bytes (`dot`), what becomes of their sums (`put`), and tables (`looked_up`). few: 1 where only the
 * first 4 channels are wanted.
 */
#if WIDE < 512
/* The first `count` of 8 bytes, where they are less than 8. */
INLINE void first_of(const int8_t *all, int count, int8_t *y)
{
    if (count == 4) __builtin_memcpy(y, all, 4);
    else if (count < 8)
        for (int i = 0; i < count; i++) y[i] = all[i];
}
#endif

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

INLINE Sums dot(Sums sum, Words x, Words w, int positive, int few)
{
    (void)positive, (void)few;
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

/* factors, by: multipliers and shifts of 8 channels. */
INLINE Scaling scaling_of(const Step *s, const int32_t *factors, const uint8_t *by)
{
    __m512i one = _mm512_set1_epi64(1), shift = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(const void *)by));
    __m512i half = _mm512_add_epi64(_mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one)), _mm512_sllv_epi64(_mm512_set1_epi64(s->zero), shift));
    return (Scaling){sums_of(factors), half, shift, _mm_set1_epi8((char)s->low), _mm_set1_epi8((char)s->high)};
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it; the first `count` of them are stored as bytes. */
INLINE void put(Sums sum, const Scaling *q, int count, int few, int8_t *y)
{
    (void)few;
    __m512i all = _mm512_add_epi64(sum, _mm512_srli_epi64(sum, 32)); /* only the lower halves are multiplied */
    __m512i v = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(all, q->multiplier), q->half), q->shift);
    __m128i bytes = _mm512_cvtsepi64_epi8(v);
    bytes = _mm_min_epi8(_mm_max_epi8(bytes, q->low), q->high);
    if (count == 8) _mm_storel_epi64((__m128i *)(void *)y, bytes);
    else _mm_mask_storeu_epi8(y, (__mmask16)((1 << count) - 1), bytes);
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

INLINE Sums dot(Sums sum, Words x, Words w, int positive, int few)
{
    UNROLL for (int i = 0; i < 2 - few; i++) {
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

INLINE Scaling scaling_of(const Step *s, const int32_t *factors, const uint8_t *by)
{
    uint64_t half[8], shift[8];
    uint32_t zero[8];
    for (int i = 0; i < 8; i++) {
        int lane = (i & 1) + (i & 2) * 2 + (i & 4) / 2, bits = by[i]; /* channels 0, 1, 4, 5, 2, 3, 6, 7 stand behind each other */
        shift[i] = (uint64_t)bits;
        half[i] = ((uint64_t)1 << (bits ? bits - 1 : 0)) + ((uint64_t)1 << 62);
        zero[lane] = (uint32_t)s->zero - (uint32_t)((uint64_t)1 << (62 - bits));
    }
    Sums multiplier = sums_of(factors);
    return (Scaling){{multiplier.half[0], multiplier.half[1]}, {at(half), at(half + 4)}, {at(shift), at(shift + 4)}, at(zero),
                     _mm256_set1_epi32(s->low), _mm256_set1_epi32(s->high)};
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it; the first `count` of them are stored as bytes. */
INLINE void put(Sums sum, const Scaling *q, int count, int few, int8_t *y)
{
    __m256 v[2];
    UNROLL for (int i = 0; i < 2 - few; i++) {
        __m256i all = _mm256_add_epi64(sum.half[i], _mm256_srli_epi64(sum.half[i], 32)); /* only the lower halves are multiplied */
        v[i] = _mm256_castsi256_ps(_mm256_srlv_epi64(_mm256_add_epi64(_mm256_mul_epi32(all, q->multiplier[i]), q->half[i]), q->shift[i]));
    }
    __m256i both = _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(v[0], v[few ? 0 : 1], 0x88)), q->zero);
    both = _mm256_permute4x64_epi64(_mm256_min_epi32(_mm256_max_epi32(both, q->low), q->high), 0xD8);
    __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    int8_t all[8];
    narrow = _mm_packs_epi16(narrow, narrow);
    _mm_storel_epi64((__m128i *)(void *)(count == 8 ? y : all), narrow);
    first_of(all, count, y);
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

INLINE Sums dot(Sums sum, Words x, Words w, int positive, int few)
{
    (void)positive;
    UNROLL for (int i = 0; i < 4 - 2 * few; i++) {
#ifdef __ARM_FEATURE_DOTPROD
        sum.part[i] = vdotq_s32(sum.part[i], x.part[i], w.part[i]);
#else
        int16x8_t one = vmull_s8(vget_low_s8(x.part[i]), vget_low_s8(w.part[i])), other = vmull_high_s8(x.part[i], w.part[i]);
        sum.part[i] = vpadalq_s16(sum.part[i], vpaddq_s16(one, other));
#endif
    }
    return sum;
}

typedef struct {
    int32x4_t multiplier[2], zero, low, high;
    int64x2_t shift[4]; /* to the left, so they are negative; the instruction rounds as `scaled` does */
} Scaling;

INLINE Scaling scaling_of(const Step *s, const int32_t *factors, const uint8_t *by)
{
    Scaling found = {.zero = vdupq_n_s32(s->zero), .low = vdupq_n_s32(s->low), .high = vdupq_n_s32(s->high)};
    for (int i = 0; i < 2; i++) found.multiplier[i] = vld1q_s32(factors + 4 * i);
    for (int i = 0; i < 4; i++) {
        int64_t left[2] = {-(int64_t)by[2 * i], -(int64_t)by[2 * i + 1]};
        found.shift[i] = vld1q_s64(left);
    }
    return found;
}

/* 8 sums scaled and limited, as `scaled` and `limited` do it; the first `count` of them are stored as bytes. */
INLINE void put(Sums sum, const Scaling *q, int count, int few, int8_t *y)
{
    int16x4_t found[2];
    UNROLL for (int i = 0; i < 2 - few; i++) {
        int32x4_t all = vpaddq_s32(sum.part[2 * i], sum.part[2 * i + 1]);
        int64x2_t low = vmull_s32(vget_low_s32(all), vget_low_s32(q->multiplier[i])), high = vmull_high_s32(all, q->multiplier[i]);
        int32x4_t v = vcombine_s32(vmovn_s64(vrshlq_s64(low, q->shift[2 * i])), vmovn_s64(vrshlq_s64(high, q->shift[2 * i + 1])));
        found[i] = vmovn_s32(vminq_s32(vmaxq_s32(vaddq_s32(v, q->zero), q->low), q->high));
    }
    int8_t all[8];
    vst1_s8(count == 8 ? y : all, vmovn_s16(vcombine_s16(found[0], found[few ? 0 : 1])));
    first_of(all, count, y);
}
#endif

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
#elif defined(__AVX2__) /* the byte's 16 possible parts of the table in turn; an index that is not in the part has its highest bit set, and gives 0 */
    __m256i top = _mm256_set1_epi8(-128), rest = _mm256_set1_epi8(0x70), sixteen = _mm256_set1_epi8(16);
    for (; i + 32 <= count; i += 32) {
        __m256i index = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(y + i)), top), found = _mm256_setzero_si256();
        UNROLL for (int k = 0; k < 16; k++, index = _mm256_sub_epi8(index, sixteen)) {
            __m256i part = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * k)));
            found = _mm256_or_si256(found, _mm256_shuffle_epi8(part, _mm256_adds_epu8(index, rest)));
        }
        _mm256_storeu_si256((__m256i *)(void *)(y + i), found);
    }
#elif WIDE == 128
    int8x16x4_t parts[4];
    for (int k = 0; k < 16; k++) parts[k / 4].val[k % 4] = vld1q_s8(table + 16 * k);
    for (; i + 16 <= count; i += 16) {
        uint8x16_t index = vreinterpretq_u8_s8(veorq_s8(vld1q_s8(y + i), vdupq_n_s8(-128)));
        int8x16_t found = vqtbl4q_s8(parts[0], index);
        for (int k = 1; k < 4; k++) found = vqtbx4q_s8(found, parts[k], vsubq_u8(index, vdupq_n_u8((uint8_t)(64 * k))));
        vst1q_s8(y + i, found);
    }
#endif
    for (; i < count; i++) y[i] = table[y[i] + 128];
}
