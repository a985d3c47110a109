/* Vectors of floats: AVX-512, AVX2 with FMA, NEON, WebAssembly SIMD, and plain C by the compiler's vector extension. VL is the number of lanes. */
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VL 8
#else
#define VL 4
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define KERNEL static __attribute__((noinline, unused)) /* Inlined, the inner loops would spill their accumulators in gcc. */
#define UNROLL _Pragma("GCC unroll 16")

typedef float V __attribute__((vector_size(4 * VL)));
typedef int32_t VI __attribute__((vector_size(4 * VL)));
typedef float Unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

INLINE V load(const float *p) { return *(const Unaligned *)p; }
INLINE void store(float *p, V x) { *(Unaligned *)p = x; }

#if VL == 16
INLINE V splat(float x) { return (V)_mm512_set1_ps(x); }
INLINE V fma_(V a, V b, V c) { return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE V max_(V a, V b) { return (V)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE V min_(V a, V b) { return (V)_mm512_min_ps((__m512)a, (__m512)b); }
#elif VL == 8
INLINE V splat(float x) { return (V)_mm256_set1_ps(x); }
INLINE V fma_(V a, V b, V c) { return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE V max_(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE V min_(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE V splat(float x) { return (V){x, x, x, x}; }
#if defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
INLINE V fma_(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE V fma_(V a, V b, V c) { return a * b + c; }
#endif
#if defined(__SSE2__)
INLINE V max_(V a, V b) { return (V)_mm_max_ps((__m128)a, (__m128)b); }
INLINE V min_(V a, V b) { return (V)_mm_min_ps((__m128)a, (__m128)b); }
#elif defined(__ARM_NEON)
INLINE V max_(V a, V b) { return (V)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE V min_(V a, V b) { return (V)vminq_f32((float32x4_t)a, (float32x4_t)b); }
#elif defined(__wasm_simd128__)
INLINE V max_(V a, V b) { return (V)wasm_f32x4_pmax((v128_t)a, (v128_t)b); }
INLINE V min_(V a, V b) { return (V)wasm_f32x4_pmin((v128_t)a, (v128_t)b); }
#else
INLINE V max_(V a, V b) { VI m = a > b; return (V)(((VI)a & m) | ((VI)b & ~m)); }
INLINE V min_(V a, V b) { VI m = a < b; return (V)(((VI)a & m) | ((VI)b & ~m)); }
#endif
#endif

/* 2^-z. Feature maps carry their values times log2(e), so this is exp(-x). A polynomial of degree 5 gives 2^f for f in an interval of length 1, from 0 on
   or around 0, with a relative error of 8e-8 and rounding. */
#if VL == 16
INLINE V exp2_minus(V z) {
    V t = splat(0) - z;
    V f = (V)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* t - floor(t) */
    V p = fma_(fma_(fma_(splat(0.00187757669f), f, splat(0.00898933969f)), f, splat(0.0558263175f)), f, splat(0.240153611f));
    p = fma_(fma_(p, f, splat(0.693153083f)), f, splat(0.99999994f));
    return (V)_mm512_scalef_ps((__m512)p, (__m512)t); /* times 2^floor(t) */
}
#else
INLINE V exp2_minus(V z) {
    V c = min_(max_(z, splat(-126.0f)), splat(126.0f));
    V t = splat(12582912.0f) - c; /* 1.5 * 2^23: the sum's low bits are the integer nearest to -c */
    V f = (splat(12582912.0f) - t) - c;
    V p = fma_(fma_(fma_(splat(0.00132765f), f, splat(0.00967554f)), f, splat(0.05550713f)), f, splat(0.2402212f));
    p = fma_(fma_(p, f, splat(0.69314697f)), f, splat(1.00000007f));
    return (V)((VI)p + ((VI)t << 23));
}
#endif
INLINE V silu(V z) { return z / (splat(1.0f) + exp2_minus(z)); }

/* Parts 2 VL floats into even and odd ones, and joins them again. */
#if VL == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VL == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VI){__VA_ARGS__})
#endif
INLINE V even_of(V a, V b) { return SHUFFLE(a, b, EVEN); }
INLINE V odd_of(V a, V b) { return SHUFFLE(a, b, ODD); }
INLINE V low_of(V a, V b) { return SHUFFLE(a, b, LOW); }
INLINE V high_of(V a, V b) { return SHUFFLE(a, b, HIGH); }

/* Vectors of four lanes, for the ends of rows that are shorter than a vector. */
typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourInts __attribute__((vector_size(16)));
INLINE Four load_four(const float *p) { return *(const UnalignedFour *)p; }
INLINE void store_four(float *p, Four x) { *(UnalignedFour *)p = x; }
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE_FOUR(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE_FOUR(a, b, ...) __builtin_shuffle(a, b, (FourInts){__VA_ARGS__})
#endif
