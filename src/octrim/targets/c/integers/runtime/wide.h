/*
 * Convolutions on processors with vectors of bytes: 8 channels of several pixels at once, the same integers as the plain loops. 8 bytes of the input go to
 * all channels and are multiplied by as many bytes of weights of each; a channel has two sums, of the first four bytes and of the others. AVX-VNNI and
 * AVX-512 VNNI multiply unsigned by signed bytes, ARM signed by signed ones; AVX2, and 64-bit ARM before dot products, do it in several instructions
 * where no weight is -128.
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
#elif defined(__aarch64__) && (defined(__ARM_FEATURE_DOTPROD) || @narrow@)
#define WIDE 128
#define UNSIGNED 0
#endif

#ifdef WIDE
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
/* Pixels of one block of 8 channels, of one of 4 and of two blocks: as many sums as registers hold. */
#if WIDE == 512
#define PIXELS 8
#define PIXELS_OF_FEW 8
#define PIXELS_OF_TWO 8
#else
#define PIXELS 4
#define PIXELS_OF_FEW 8
#define PIXELS_OF_TWO 2
#endif
/* Sum of the weights of every channel. */
@totals@
enum { MOST_LINES = @lines@, MOST_CHANNELS = @most_channels@, MOST_TAPS = @most_taps@ };

@vectors@
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

/* `pixels` output pixels from `place` on by one or two blocks. few: 1 where the last block has at most 4 channels, and nothing is computed for more. */
INLINE void block(const int pixels, const int blocks, const int positive, const int few, const Input *in, int place, const Blocks *b, int8_t *y)
{
    Sums sums[2][8];
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
            sums[0][p] = dot(sums[0][p], all, one, positive, blocks == 1 && few);
            if (blocks == 2) sums[1][p] = dot(sums[1][p], all, other, positive, few);
        }
        w += b->step[0];
        if (blocks == 2) v += b->step[1];
    } while (++taps != end);
    y += place * in->pitch;
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int i = 0; i < blocks; i++) {
            put(sums[i][p], &b->scaling[i], b->count[i], i == blocks - 1 && few, y + p * in->pitch + 8 * i);
        }
}

/* All pixels of an output row; the last block is moved back to end with the row, and what two blocks share is computed twice. */
INLINE void row_of(const int blocks, const int positive, const int few, const Input *in, const Blocks *b, int8_t *y)
{
    const int most = blocks == 2 ? PIXELS_OF_TWO : few ? PIXELS_OF_FEW : PIXELS;
    if (in->width < most)
        for (int p = 0; p < in->width; p++) block(1, blocks, positive, few, in, p, b, y);
    else
        for (int p = 0; p < in->width; p += most) block(most, blocks, positive, few, in, p + most > in->width ? in->width - most : p, b, y);
}
#define ROW(name, blocks, positive, few) \
    static __attribute__((noinline)) void name(const Input *in, const Blocks *b, int8_t *y) { row_of(blocks, positive, few, in, b, y); }
ROW(one_block, 1, 0, 0)
ROW(two_blocks, 2, 0, 0)
ROW(one_positive, 1, 1, 0)
ROW(two_positive, 2, 1, 0)
#if WIDE == 512 /* there half of the channels take as long as all */
#define few_of_one one_block
#define few_of_two two_blocks
#define few_of_one_positive one_positive
#define few_of_two_positive two_positive
#else
ROW(few_of_one, 1, 0, 1)
ROW(few_of_two, 2, 0, 1)
ROW(few_of_one_positive, 1, 1, 1)
ROW(few_of_two_positive, 2, 1, 1)
#endif
/* By blocks less one, whether the input is positive, and whether the last block has at most 4 channels. */
static void (*const rows[2][2][2])(const Input *, const Blocks *, int8_t *) = {
    {{one_block, few_of_one}, {one_positive, few_of_one_positive}}, {{two_blocks, few_of_two}, {two_positive, few_of_two_positive}}};

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

@stem@
/* Whether the convolution could be done here. */
static int wide_convolution(const Step *s, const uint8_t *x, int8_t *y)
{
#ifdef STEM
    if (stem(s, x, y)) return 1;
#endif
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
        b->scaling[i] = scaling_of(s, multipliers + s->values + c, shifts + s->values + c);
        for (int k = 0; k < count; k++) start[c + k] = biases[s->values + c + k] - (turned ? (UNSIGNED ? 128 : -128) * totals[s->values + c + k] : 0);
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
            int two = s->channels - c > 8;
            rows[two][positive][b->count[two] <= 4](&in, b, y + c);
        }
        if (s->table >= 0) looked_up(y, (int32_t)s->width * s->channels, tables[s->table]); /* these have no pitch beyond their channels */
    }
    return 1;
}
@depthwise@#endif
