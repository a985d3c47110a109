/*
 * The convolution of the picture, whose three channels fill no vector: 16 pixels of a channel at once, with AVX-512 VNNI and VBMI. A line of the picture
 * is laid out as `words` lines of words: number j has the bytes 4 j .. 4 j + 3 of every pixel's window. So a word of weights goes to all pixels of a vector.
 */
#if WIDE == 512 && defined(__AVX512VBMI__)
#define STEM 1
enum { MOST_WORDS = @most_words@, MOST_FOURS = @most_fours@ };

/* Lays out a padded line of `width` windows that begin `next` bytes apart. first: places of the first word's bytes. to: lines of `length` words. */
static void laid_out(const uint8_t *line, int width, int next, int words, __m512i first, uint32_t *to, int length)
{
    for (int p = 0; p < width; p += 16) {
        __m512i low = _mm512_loadu_si512(line + p * next), high = _mm512_loadu_si512(line + p * next + 64), places = first;
        for (int j = 0; j < words; j++, places = _mm512_add_epi8(places, _mm512_set1_epi8(4)))
            _mm512_storeu_si512(to + j * length + p, _mm512_permutex2var_epi8(low, places, high));
    }
}

/* 16 sums of a channel scaled and limited, as `scaled` and `limited` do it, as bytes. */
INLINE __m128i bytes_of(const Step *s, __m512i sums, int32_t channel)
{
    __m512i multiplier = _mm512_set1_epi64(multipliers[channel]);
    __m512i half = _mm512_set1_epi64(((int64_t)1 << (shifts[channel] - 1)) + s->zero * ((int64_t)1 << shifts[channel]));
    __m128i shift = _mm_cvtsi32_si128(shifts[channel]);
    __m512i even = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mul_epi32(sums, multiplier), half), shift);
    __m512i odd = _mm512_sra_epi64(_mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(sums, 32), multiplier), half), shift);
    __m128i all = _mm_unpacklo_epi8(_mm512_cvtsepi64_epi8(even), _mm512_cvtsepi64_epi8(odd));
    return _mm_min_epi8(_mm_max_epi8(all, _mm_set1_epi8((char)s->low)), _mm_set1_epi8((char)s->high));
}

/* The weights of the channels from `first` on, at most 4, in the order in which they are used: [line][word][4]. Behind the last channel stands anything. */
static void four_packed(const Step *s, int first, int32_t *to)
{
    int place = first % 8, begin = first - place, eights = (s->words + 1) / 2, each = s->channels - begin < 8 ? s->channels - begin : 8;
    const int8_t *w = weights + s->weights + (begin * s->kernel * eights + place) * 8;
    for (int i = 0; i < s->kernel; i++, w += eights * 8 * each)
        for (int j = 0; j < s->words; j++)
            for (int c = 0; c < 4; c++) __builtin_memcpy(to++, w + (j / 2 * each + c) * 8 + j % 2 * 4, 4);
}

/* 32 output pixels of the channels from `first` on, at most 4. lines: of every line of the window, its lines of words from the first pixel on. */
static void four_channels(const Step *s, const uint32_t *const *lines, int length, int first, const int32_t *w, int8_t *y)
{
    int left = s->channels - first < 4 ? s->channels - first : 4;
    __m512i sums[2][4];
    UNROLL for (int c = 0; c < 4; c++) sums[0][c] = sums[1][c] = _mm512_set1_epi32(c < left ? biases[s->values + first + c] : 0);
    for (int i = 0; i < s->kernel; i++) {
        const uint32_t *x = lines[i];
        for (int j = 0; j < s->words; j++, x += length, w += 4) {
            __m512i one = _mm512_loadu_si512(x), other = _mm512_loadu_si512(x + 16);
            UNROLL for (int c = 0; c < 4; c++) {
                sums[0][c] = dot(sums[0][c], one, _mm512_set1_epi32(w[c]), 0, 0);
                sums[1][c] = dot(sums[1][c], other, _mm512_set1_epi32(w[c]), 0, 0);
            }
        }
    }
    for (int half = 0; half < 2; half++) {
        __m128i found[4], pairs[4];
        UNROLL for (int c = 0; c < 4; c++) found[c] = bytes_of(s, sums[half][c], s->values + first + (c < left ? c : 0));
        UNROLL for (int i = 0; i < 2; i++) {
            pairs[2 * i] = _mm_unpacklo_epi8(found[2 * i], found[2 * i + 1]);
            pairs[2 * i + 1] = _mm_unpackhi_epi8(found[2 * i], found[2 * i + 1]);
        }
        int32_t four[16];
        UNROLL for (int i = 0; i < 2; i++) {
            _mm_storeu_si128((__m128i *)(void *)(four + 8 * i), _mm_unpacklo_epi16(pairs[i], pairs[2 + i]));
            _mm_storeu_si128((__m128i *)(void *)(four + 8 * i + 4), _mm_unpackhi_epi16(pairs[i], pairs[2 + i]));
        }
        for (int k = 0; k < 16; k++, y += s->pitch) {
            if (left == 4) __builtin_memcpy(y, four + k, 4);
            else __builtin_memcpy(y, four + k, (size_t)left);
        }
    }
}

/* Whether the convolution was the picture's, and could be done here. */
static int stem(const Step *s, const uint8_t *x, int8_t *y)
{
    int32_t next = s->stride * s->in_channels, length = (s->width + 15) / 16 * 16, bytes = (s->in_width + 2 * s->padding) * s->in_channels;
    if (s->input >= 0 || s->groups > 1 || s->width < 32 || 15 * next + 4 * s->words > 128) return 0;
    if (s->kernel * s->words * length > MOST_WORDS || bytes > MOST_WORDS || length * next > MOST_WORDS) return 0;
    for (int c = 0; c < s->channels; c++)
        if (shifts[s->values + c] < 1 || shifts[s->values + c] > 54) return 0;
    int32_t packed[MOST_FOURS][4], taps = s->kernel * s->words;
    for (int c = 0; c < s->channels; c += 4) four_packed(s, c, packed[c / 4 * taps]);
    uint32_t words[MOST_WORDS];
    uint8_t line[MOST_WORDS + 128]; /* what is read behind the line meets no weights, or is no pixel's */
    const uint32_t *lines[256];
    uint8_t places[64];
    for (int i = 0; i < 64; i++) places[i] = (uint8_t)(i / 4 * next + i % 4);
    __m512i first = _mm512_loadu_si512(places);
    for (int row = 0, ready = 0; row < s->height; row++, y += (int32_t)s->width * s->pitch) {
        int top = row * s->stride;
        for (ready = ready < top ? top : ready; ready < top + s->kernel; ready++) {
            padded_line(s, x, ready - s->padding, 0, line);
            laid_out(line, s->width, next, s->words, first, words + ready % s->kernel * s->words * length, length);
        }
        for (int p = 0; p < s->width; p += 32) { /* the last block is moved back to end with the row */
            int at = p + 32 > s->width ? s->width - 32 : p;
            for (int i = 0; i < s->kernel; i++) lines[i] = words + (top + i) % s->kernel * s->words * length + at;
            for (int c = 0; c < s->channels; c += 4) four_channels(s, lines, length, c, packed[c / 4 * taps], y + at * s->pitch + c);
        }
        if (s->table >= 0) looked_up(y, (int32_t)s->width * s->channels, tables[s->table]); /* these have no pitch beyond their channels */
    }
    return 1;
}
#endif
