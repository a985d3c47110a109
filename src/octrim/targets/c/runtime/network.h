/* What a network is to this program: tables of maps, steps and stages, offsets, and weights.

   A map is a plane of floats per channel. Between two rows lie `margin` columns of zeros, which are the right padding of one row and the left padding
   of the next, and there are as many rows of zeros above and below. So a convolution is a sum over taps, each a plane that is shifted by an offset;
   the offsets of all taps stand in one table.

   There are two bands, the upper and the lower part of all maps, each in memory of its own, where rows count from the band's first. */
typedef struct {
    int32_t at;     /* of the first channel's first pixel, in floats from the start of the arena */
    int32_t plane;  /* floats from channel to channel */
    int32_t pitch;  /* floats from row to row: width + margin */
    int32_t channels, height, width;
    int32_t margin;
    int32_t padded; /* whether a window reads it, so that the margin has to be zero */
    int32_t rows;   /* of the first band */
} Map;

enum Kind { IMAGE, STEM, PARITY, CONVOLUTION, WINOGRAD, PLAIN, ADD, POOL, UPSAMPLE, HEAD, DEPTHWISE };
enum Activation { LINEAR, SILU, RELU6, HARDSWISH, MISH, SIGMOID }; /* LINEAR: max(z, slope z); a slope of 1 is none, 0 is ReLU */

/* The kinds of steps and the activations that there can be, a bit each. A file with a network defines those of its steps, and what they do not call is left
   out by the compiler. */
#ifndef KINDS
#define KINDS ~0u
#define ACTIVATIONS ~0u
#endif
#define HAS(set, one) ((set) >> (one) & 1u)
#define ACTIVATED_BY(step, one) (HAS(ACTIVATIONS, one) && (step)->activation == (one))

typedef struct {
    int32_t kind, activation;
    int32_t rows;            /* of this step per row of its stage */
    int32_t in, out, add;    /* maps; -1: none. add: added behind the activation */
    int32_t taps, count;     /* first of its offsets, and how many there are; of a convolution per group */
    int32_t weights, bias;   /* where they start */
    int32_t slope;           /* where the slope of LINEAR stands */
    int32_t groups, kernel, stride, padding; /* a stride of 2 of IMAGE and STEM: what they write is split by parity */
    int32_t pitch;           /* floats from row to row of what the offsets point into */
    int32_t tiles;           /* WINOGRAD: how often four lines of the map are done at once */
    int32_t box, anchors;    /* HEAD: number of its first box, anchors of its level */
    int32_t halo, above, below, reach; /* a window reads `reach` rows of the other band: first of the planes' offsets, those read above, then below */
} Step;

/* Steps first .. first + steps - 1, done in chunks that do not depend on each other. Each band has as many; chunk i has the rows i * size .. of its band, which are
   `split` of the first band and the rest of `extent` of the second. With `planes` the chunks are channels, of all rows. */
typedef struct {
    int32_t first, steps, chunks, size, extent, split, planes;
} Stage;

typedef struct {
    int32_t height, width, boxes, values; /* of the picture; boxes found, and numbers per box */
    int32_t arena, scratch;               /* floats for the maps of each band, and for each thread */
    int32_t stages, bands;
    const Map *maps;
    const Step *step;
    const Stage *stage;
    const int32_t *taps;
} Network;

/* Arguments of a step. */
typedef struct {
    const Network *net;
    const float *weights;
    float *arena, *scratch; /* the arena is the band's; that of the other band is in front of or behind it */
    int row;                /* first row of the band, in rows of the step */
    const uint8_t *image; /* red, green, blue, row by row */
    float *boxes;
} Work;
