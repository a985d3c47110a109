/* @title@ */
#include "detector.h"

#include <stddef.h>

#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#include <arm_acle.h>
#endif

enum Kind { CONVOLUTION, ADD, COPY, POOL, UPSAMPLE };

/*
 * One step. Maps are int8 [height][width][channels] in the memory of the run; the picture, bytes of the same order, is map -1.
 * kernel, stride, padding: of windows; stride is also the factor of an upsampling. place, pitch: where the first of a step's channels stands in a
 * pixel of the output, and how many channels a pixel has there. weights, values: where its weights and its numbers per channel begin. words: words of
 * 4 bytes of the input in a line of a window. positive: whether the input has no number below zero. table: what follows a convolution or a copy, 256
 * values per table; -1 for none. low, high: limits in front of the table. zero: added in front of the limits. multiplier: of the two inputs of a sum,
 * and shift.
 *
 * Weights are [group][block of 8 channels][line of the window][two words][channel of the block][8]; the last block of a group has the channels that are
 * left, and lines are filled up with zeros. Those of a depthwise convolution are [line of the window][column][channel].
 */
typedef struct {
    uint8_t kind, kernel, stride, padding, positive;
    int16_t height, width, channels, in_height, in_width, in_channels, groups, words, place, pitch, table, zero, low, high, shift;
    int32_t input, second, output, weights, values, multiplier[2];
} Step;

typedef struct {
    int32_t output;
    int16_t height, width, anchors, stride;
    int32_t anchor[@most_anchors@][2]; /* sixteenths of a pixel */
} Level;

@tables@
/* Bytes in moves of 8 or 4; the last one is moved back to end with them, and what two moves share is copied twice. */
static inline void copied(int8_t *to, const int8_t *from, size_t count)
{
    size_t i = 0, width = count < 8 ? 4 : 8;
    if (count < 4) {
        for (; i < count; i++) to[i] = from[i];
        return;
    }
    for (; i + width < count; i += width) {
        if (width == 8) __builtin_memcpy(to + i, from + i, 8);
        else __builtin_memcpy(to + i, from + i, 4);
    }
    i = count - width;
    if (width == 8) __builtin_memcpy(to + i, from + i, 8);
    else __builtin_memcpy(to + i, from + i, 4);
}

/* Whether every channel is a convolution of one channel of the input. */
static inline int depthwise(const Step *s) { return s->groups > 1 && s->groups == s->channels && s->groups == s->in_channels; }

static inline int32_t limited(int32_t v, int32_t low, int32_t high) { return v < low ? low : v > high ? high : v; }

/* acc x multiplier / 2^shift, rounded; the multiplier has 31 bits. */
static inline int32_t scaled(int32_t acc, int32_t channel)
{
    int64_t product = (int64_t)acc * multipliers[channel];
    return (int32_t)((product + ((int64_t)1 << (shifts[channel] - 1))) >> shifts[channel]);
}

/*
 * A window of the input as 16-bit numbers, count words of 4. Processors with ARM's DSP instructions multiply
 * two pairs of them at once: bytes 0 and 2 of a word of weights, then 1 and 3, so the window has that order there.
 */
#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
static inline uint32_t word(const void *p)
{
    uint32_t w;
    __builtin_memcpy(&w, p, 4);
    return w;
}

static inline uint32_t turned(uint32_t w) { return w >> 8 | w << 24; }

static void widened(int16_t *to, const int8_t *from, int count, int bytes)
{
    for (; count > 0; count--, from += 4, to += 4) {
        uint32_t w = word(from), pairs[2] = {__sxtb16(w), __sxtb16(turned(w))};
        if (bytes) {
            pairs[0] = __uxtb16(w);
            pairs[1] = __uxtb16(turned(w));
        }
        __builtin_memcpy(to, pairs, 8);
    }
}

/* Four numbers of the window times a word of the weights of two channels. */
static inline void multiplied(const int16_t *x, const int8_t *w, int32_t *sums)
{
    uint32_t x0 = word(x), x1 = word(x + 2), a = word(w), b = word(w + 8);
    sums[0] = __smlad(x0, __sxtb16(a), sums[0]);
    sums[1] = __smlad(x0, __sxtb16(b), sums[1]);
    sums[0] = __smlad(x1, __sxtb16(turned(a)), sums[0]);
    sums[1] = __smlad(x1, __sxtb16(turned(b)), sums[1]);
}
#else
static void widened(int16_t *to, const int8_t *from, int count, int bytes)
{
    for (int i = 0; i < 4 * count; i++) to[i] = bytes ? (uint8_t)from[i] : from[i];
}

/* Four numbers of the window times a word of the weights of two channels. */
static inline void multiplied(const int16_t *x, const int8_t *w, int32_t *sums)
{
    for (int i = 0; i < 4; i++) {
        sums[0] += x[i] * w[i];
        sums[1] += x[i] * w[8 + i];
    }
}
#endif

/*
 * The window, `lines` of `words` words, times the weights of two channels from `w` on. step: bytes from two words of weights of a channel to the next two.
 * It is not inlined, because small processors have just enough registers for these loops.
 */
static __attribute__((noinline)) void products(const int16_t *x, const int8_t *w, int lines, int words, int step, int32_t *sums)
{
    int32_t found[2] = {sums[0], sums[1]};
    for (; lines > 0; lines--) {
        int left = words;
        for (; left > 1; left -= 2, x += 8, w += step) {
            multiplied(x, w, found);
            multiplied(x + 4, w + 4, found);
        }
        if (left) {
            multiplied(x, w, found);
            x += 4;
            w += step;
        }
    }
    sums[0] = found[0];
    sums[1] = found[1];
}

/* The window of an output pixel over `inputs` channels of the input from `from` on, zeros around the map and behind each line: `to`, [kernel][words][4]. */
static void gathered(const Step *s, const int8_t *x, int row, int column, int from, int inputs, int8_t *to)
{
    int top = row * s->stride - s->padding, left = column * s->stride - s->padding;
    for (int i = 0; i < s->kernel; i++) {
        for (int j = 0; j < s->kernel; j++, to += inputs) {
            int line = top + i, place = left + j;
            if (line < 0 || place < 0 || line >= s->in_height || place >= s->in_width)
                for (int c = 0; c < inputs; c++) to[c] = 0;
            else
                copied(to, x + ((int32_t)line * s->in_width + place) * s->in_channels + from, (size_t)inputs);
        }
        for (int c = s->kernel * inputs; c < 4 * s->words; c++) *to++ = 0;
    }
}

/* The taps of a depthwise window that lie in the map, lines x columns, times their weights. below: from behind a line of taps to the next line's first. */
static inline int32_t window_sum(const int8_t *x, const int8_t *w, int lines, int columns, int32_t channels, int32_t below, int32_t below_w, int bytes)
{
    int32_t sum = 0;
    for (; lines > 0; lines--, x += below, w += below_w)
        for (int j = 0; j < columns; j++, x += channels, w += channels) sum += (bytes ? (uint8_t)*x : *x) * *w;
    return sum;
}

/* The depthwise convolution, pixel by pixel. */
static void each_channel(const Step *s, const int8_t *x, int8_t *y)
{
    const int8_t *table = s->table < 0 ? 0 : tables[s->table];
    int32_t channels = s->channels, kernel = s->kernel;
    for (int row = 0; row < s->height; row++)
        for (int column = 0; column < s->width; column++, y += s->pitch) {
            int top = row * s->stride - s->padding, left = column * s->stride - s->padding;
            int i = top < 0 ? -top : 0, j = left < 0 ? -left : 0;
            int lines = (s->in_height - top < kernel ? s->in_height - top : kernel) - i;
            int columns = (s->in_width - left < kernel ? s->in_width - left : kernel) - j;
            const int8_t *from = x + ((int32_t)(top + i) * s->in_width + left + j) * channels, *w = weights + s->weights + (i * kernel + j) * channels;
            int32_t below = (s->in_width - columns) * channels, below_w = (kernel - columns) * channels;
            for (int c = 0; c < s->channels; c++) {
                int32_t sum = biases[s->values + c] + window_sum(from + c, w + c, lines, columns, channels, below, below_w, s->input < 0);
                int32_t v = limited(scaled(sum, s->values + c) + s->zero, s->low, s->high);
                y[c] = table ? table[v + 128] : (int8_t)v;
            }
        }
}

@wide@
static void convolution(const Step *s, const int8_t *x, int8_t *y, int16_t *window)
{
#ifdef WIDE
    if (wide_convolution(s, (const uint8_t *)x, y)) return;
#ifdef WIDE_DEPTHWISE
    if (wide_depthwise(s, (const uint8_t *)x, y)) return;
#endif
#endif
    if (depthwise(s)) {
        each_channel(s, x, y);
        return;
    }
    int inputs = s->in_channels / s->groups, outputs = s->channels / s->groups, count = s->kernel * s->words;
    int8_t *bytes = (int8_t *)(window + 4 * count);
    const int8_t *table = s->table < 0 ? 0 : tables[s->table];
    for (int row = 0; row < s->height; row++)
        for (int column = 0; column < s->width; column++, y += s->pitch)
            for (int c = 0; c < s->channels; c += 2) {
                if (c % outputs == 0 || outputs == 1) {
                    gathered(s, x, row, column, c / outputs * inputs, inputs, bytes);
                    widened(window, bytes, count, s->input < 0);
                }
                int pair = c % outputs + 1 < outputs, place = c % outputs % 8, first = c - place, left = outputs - c % outputs + place;
                int32_t eights = (s->words + 1) / 2, step = 8 * (left < 8 ? left : 8);
                const int8_t *w = weights + s->weights + (first * s->kernel * eights + place) * 8;
                int32_t sums[2] = {biases[s->values + c], pair ? biases[s->values + c + 1] : 0};
                products(window, w, s->kernel, s->words, step, sums);
                for (int i = 0; i <= pair; i++) {
                    int32_t v = limited(scaled(sums[i], s->values + c + i) + s->zero, s->low, s->high);
                    y[c + i] = table ? table[v + 128] : (int8_t)v;
                }
                c -= 1 - pair;
            }
}

static void add(const Step *s, const int8_t *restrict a, const int8_t *restrict b, int8_t *restrict y)
{
    int32_t count = (int32_t)s->height * s->width * s->channels, one = s->multiplier[0], other = s->multiplier[1], shift = s->shift;
    int32_t half = (int32_t)1 << (shift - 1);
    for (int32_t i = 0; i < count; i++) y[i] = (int8_t)limited((a[i] * one + b[i] * other + half) >> shift, -128, 127);
}

/* `count` channels of every pixel into those of another map. */
static inline __attribute__((always_inline)) void moved(const Step *s, const int8_t *x, int8_t *y, int count)
{
    for (int32_t pixel = 0; pixel < (int32_t)s->height * s->width; pixel++, x += count, y += s->pitch) copied(y, x, (size_t)count);
}

/* Channels of one map into those of another; from the picture, whose bytes are numbers of the table. Counts of thin layers are known to the compiler. */
static void copy(const Step *s, const uint8_t *x, int8_t *y)
{
    if (s->table < 0) {
        const int8_t *from = (const int8_t *)x;
        if (s->channels == 4) moved(s, from, y, 4);
        else if (s->channels == 8) moved(s, from, y, 8);
        else if (s->channels == 12) moved(s, from, y, 12);
        else if (s->channels == 16) moved(s, from, y, 16);
        else moved(s, from, y, s->channels);
        return;
    }
    for (int32_t pixel = 0; pixel < (int32_t)s->height * s->width; pixel++, x += s->channels, y += s->pitch)
        for (int c = 0; c < s->channels; c++) y[c] = tables[s->table][x[c]];
}

static inline void raised(int8_t *restrict y, const int8_t *restrict x, int32_t count)
{
    for (int32_t i = 0; i < count; i++) y[i] = x[i] > y[i] ? x[i] : y[i];
}

/* Row by row, one element of the window after the other: with stride 1 the pixels that it meets stand in a line. */
static void pool(const Step *s, const int8_t *x, int8_t *y)
{
    int32_t channels = s->channels, stride = s->stride, most = s->width * channels;
    for (int row = 0; row < s->height; row++, y += most) {
        for (int32_t i = 0; i < most; i++) y[i] = -128;
        for (int i = 0; i < s->kernel; i++) {
            int line = row * stride - s->padding + i;
            if (line < 0 || line >= s->in_height) continue;
            for (int j = 0; j < s->kernel; j++) {
                int left = j - s->padding, first = left < 0 ? (-left + stride - 1) / stride : 0, end = (s->in_width - left + stride - 1) / stride;
                int32_t from = ((int32_t)line * s->in_width + left) * channels;
                if (end > s->width) end = s->width;
                if (stride == 1 && first < end) raised(y + first * channels, x + from + first * channels, (end - first) * channels);
                else
                    for (int column = first; column < end; column++) raised(y + column * channels, x + from + column * stride * channels, channels);
            }
        }
    }
}

static void upsample(const Step *s, const int8_t *x, int8_t *y)
{
    for (int row = 0; row < s->height; row++)
        for (int column = 0; column < s->width; column++, y += s->pitch)
            copied(y, x + ((int32_t)(row / s->stride) * s->in_width + column / s->stride) * s->channels, (size_t)s->channels);
}

static void network(int8_t *memory, const uint8_t *pixels)
{
    int16_t *window = (int16_t *)(void *)(memory + @window@);
    for (const Step *s = steps; s < steps + sizeof steps / sizeof *steps; s++) {
        const int8_t *x = s->input < 0 ? (const int8_t *)pixels : memory + s->input;
        int8_t *y = memory + s->output + s->place;
        if (s->kind == CONVOLUTION) convolution(s, x, y, window);
        if (s->kind == ADD) add(s, x, memory + s->second, y);
        if (s->kind == COPY) copy(s, (const uint8_t *)x, y);
        if (s->kind == POOL) pool(s, x, y);
        if (s->kind == UPSAMPLE) upsample(s, x, y);
    }
}

void OCTRIM_(logits)(void *memory, const uint8_t *pixels, int8_t *logits)
{
    network(memory, pixels);
    for (const Level *l = levels; l < levels + sizeof levels / sizeof *levels; l++) {
        size_t count = (size_t)l->height * l->width * l->anchors * (5 + OCTRIM_(classes));
        copied(logits, (int8_t *)memory + l->output, count);
        logits += count;
    }
}

/* The box of a cell and an anchor: s = sigmoid in shares of 65536; centre (2 s - 0.5 + cell) stride, side (2 s)^2 anchor. */
static OCTRIM_(box) box_of(const Level *l, const int8_t *t, int row, int column, const int32_t *anchor)
{
    int32_t side[2], centre[2], cell[2] = {column, row}, corner[4];
    for (int i = 0; i < 2; i++) {
        uint32_t s = box_sigmoids[t[2 + i] + 128], square = s * s >> 16;
        centre[i] = (int32_t)(((2 * (int64_t)box_sigmoids[t[i] + 128] - 32768 + (int64_t)cell[i] * 65536) * l->stride * 16) >> 16);
        side[i] = (int32_t)(((int64_t)square * 4 * anchor[i]) >> 16);
        corner[i] = limited(centre[i] - side[i] / 2, -32768, 32767);
        corner[2 + i] = limited(centre[i] + side[i] / 2, -32768, 32767);
    }
    return (OCTRIM_(box)){(int16_t)corner[0], (int16_t)corner[1], (int16_t)corner[2], (int16_t)corner[3], 0, 0};
}

/* Keeps the best boxes in order: the new one goes behind those that are as good, the last one falls out of a full list. */
static int kept(OCTRIM_(box) *boxes, int count, int most, OCTRIM_(box) box)
{
    int place = count < most ? count++ : most;
    if (place == most && (most == 0 || boxes[--place].score >= box.score)) return count;
    for (; place > 0 && boxes[place - 1].score < box.score; place--) boxes[place] = boxes[place - 1];
    boxes[place] = box;
    return count;
}

static int overlapping(const OCTRIM_(box) *a, const OCTRIM_(box) *b, uint16_t overlap)
{
    int32_t w = (a->x2 < b->x2 ? a->x2 : b->x2) - (a->x1 > b->x1 ? a->x1 : b->x1), h = (a->y2 < b->y2 ? a->y2 : b->y2) - (a->y1 > b->y1 ? a->y1 : b->y1);
    if (a->label != b->label || w <= 0 || h <= 0) return 0;
    uint64_t both = (uint64_t)w * (uint64_t)h;
    uint64_t all = (uint64_t)(a->x2 - a->x1) * (uint64_t)(a->y2 - a->y1) + (uint64_t)(b->x2 - b->x1) * (uint64_t)(b->y2 - b->y1) - both;
    return (both << 16) > all * overlap;
}

int OCTRIM_(run)(void *memory, const uint8_t *pixels, uint16_t threshold, uint16_t overlap, OCTRIM_(box) *boxes, int most)
{
    int count = 0;
    network(memory, pixels);
    for (const Level *l = levels; l < levels + sizeof levels / sizeof *levels; l++) {
        const int8_t *t = (int8_t *)memory + l->output;
        for (int row = 0; row < l->height; row++)
            for (int column = 0; column < l->width; column++)
                for (int a = 0; a < l->anchors; a++, t += 5 + OCTRIM_(classes)) {
                    if (sigmoids[t[4] + 128] < threshold) continue;
                    int best = 0;
                    for (int c = 1; c < OCTRIM_(classes); c++)
                        if (t[5 + c] > t[5 + best]) best = c;
                    uint32_t score = (uint32_t)sigmoids[t[4] + 128] * sigmoids[t[5 + best] + 128] / 65535;
                    if (score < threshold) continue;
                    OCTRIM_(box) box = box_of(l, t, row, column, l->anchor[a]);
                    box.score = (uint16_t)score;
                    box.label = (uint16_t)best;
                    count = kept(boxes, count, most, box);
                }
    }
    int left = 0;
    for (int i = 0; i < count; i++) {
        int suppressed = 0;
        for (int j = 0; j < left; j++) suppressed |= overlapping(boxes + j, boxes + i, overlap);
        if (!suppressed) boxes[left++] = boxes[i];
    }
    return left;
}
