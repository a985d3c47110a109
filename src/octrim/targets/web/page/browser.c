/* What the page needs beside the network: memory, and pictures fitted in as octrim.data.pictures.letterbox does, which resizes as OpenCV does, bit by bit. */
#include "detector.h"

#define PAGE 65536u
#define GREY 114
#define ONE 2048 /* a weight of 1 in OpenCV's fixed-point numbers */

/* Where one row or column of the network's picture comes from: two neighbours and their weights in units of 1 / ONE. */
typedef struct {
    int32_t first, second, a, b;
} Sample;

static detector *instance;
static uint8_t *source; /* the caller's picture: red, green, blue, alpha */
static size_t source_bytes;
static const void *weights;
static size_t weights_bytes;
static uint8_t fitted[detector_width * detector_height * 3];
static float boxes[detector_boxes * detector_values];
static Sample across[detector_width];
static double fit[4]; /* pixels of the network's picture per pixel, across and down; left and upper padding */

/* New memory of this many bytes, zeros; NULL when the browser has none. */
static void *grown(size_t bytes) {
    size_t page = __builtin_wasm_memory_grow(0, (bytes + PAGE - 1) / PAGE);
    return page == (size_t)-1 ? NULL : (void *)(page * PAGE);
}

static double nearest(double x) { return __builtin_rint(x); }

static int inside(int i, int limit) { return i < 0 ? 0 : i >= limit ? limit - 1 : i; }

/* `clamped`: whether the weights of what lies outside are moved to the edge, as OpenCV does for columns but not for rows. */
static Sample sample(int i, int to, int from, int clamped) {
    double scale = 1 / ((double)to / from);
    float at = (float)((i + 0.5) * scale - 0.5);
    float whole = __builtin_floorf(at), rest = at - whole;
    int first = (int)whole;
    if (clamped && (first < 0 || first >= from - 1)) rest = 0;
    return (Sample){inside(first, from), inside(first + 1, from), (int)__builtin_rintf((1 - rest) * ONE), (int)__builtin_rintf(rest * ONE)};
}

/* Room for weights.bin, which is written there before octrim_open. */
void *octrim_weights(size_t bytes) {
    weights_bytes = bytes;
    weights = grown(bytes);
    return (void *)weights;
}

/* Makes the instance; a result of detector_open. */
int octrim_open(void) {
    detector_options options = {0};
    options.memory_bytes = detector_memory(1);
    options.memory = grown(options.memory_bytes);
    options.weights = weights;
    options.weights_bytes = weights_bytes;
    return detector_open(&options, &instance);
}

/* Room for a picture of width * height pixels of four bytes; NULL when there is none. */
uint8_t *octrim_source(int width, int height) {
    size_t bytes = (size_t)width * (size_t)height * 4;
    if (bytes > source_bytes) {
        source = grown(bytes);
        source_bytes = source ? bytes : 0;
    }
    return source;
}

/* The network's picture, detector_width * detector_height pixels of three bytes. */
uint8_t *octrim_input(void) { return fitted; }

/* How the last picture was fitted in: four doubles. */
const double *octrim_fitted(void) { return fit; }

/* Scales the picture in octrim_source into the network's, bilinear and with its aspect kept, on grey. */
void octrim_fit(int width, int height) {
    double wide = (double)detector_width / width, high = (double)detector_height / height, ratio = wide < high ? wide : high;
    int columns = (int)nearest(width * ratio), rows = (int)nearest(height * ratio);
    columns = columns < 1 ? 1 : columns, rows = rows < 1 ? 1 : rows;
    int left = (detector_width - columns) / 2, top = (detector_height - rows) / 2;
    fit[0] = (double)columns / width, fit[1] = (double)rows / height, fit[2] = left, fit[3] = top;
    __builtin_memset(fitted, GREY, sizeof fitted);
    for (int x = 0; x < columns; x++) across[x] = sample(x, columns, width, 1);
    for (int y = 0; y < rows; y++) {
        Sample down = sample(y, rows, height, 0);
        const uint8_t *upper = source + (size_t)down.first * (size_t)width * 4, *lower = source + (size_t)down.second * (size_t)width * 4;
        uint8_t *to = fitted + ((size_t)(y + top) * detector_width + (size_t)left) * 3;
        for (int x = 0; x < columns; x++) {
            Sample s = across[x];
            for (int c = 0; c < 3; c++) {
                int32_t p = upper[4 * s.first + c] * s.a + upper[4 * s.second + c] * s.b, q = lower[4 * s.first + c] * s.a + lower[4 * s.second + c] * s.b;
                to[3 * x + c] = (uint8_t)((((down.a * (p >> 4)) >> 16) + ((down.b * (q >> 4)) >> 16) + 2) >> 2);
            }
        }
    }
}

/* Runs the network on octrim_input; returns detector_boxes * detector_values floats. */
const float *octrim_run(void) {
    detector_run(instance, fitted, boxes);
    return boxes;
}
