/* Finds objects in a picture: ./example picture.ppm [confidence] [threads] [vote]. Prints a line per object: name, confidence, x1, y1, x2, y2 in pixels
   of the picture. With "vote" each box is the mean of the boxes around it, which fits better (score voting).
   A picture becomes a PPM by `magick picture.jpg picture.ppm` or `djpeg picture.jpg > picture.ppm`. */
#include "detector.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 300 }; /* most objects that are kept */

typedef struct {
    float x1, y1, x2, y2, confidence;
    int class;
} Object;

/* How a picture was fitted in: pixels of the network's picture per pixel, and where it begins. */
typedef struct {
    float scale_x, scale_y;
    int left, top;
} Fit;

static int read_number(FILE *file) {
    int c = getc(file), number = -1;
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = getc(file);
        else c = getc(file);
    }
    for (; c >= '0' && c <= '9' && number < 100000; c = getc(file)) number = (number < 0 ? 0 : number) * 10 + c - '0';
    return number;
}

/* Reads a binary PPM of 8 bits; returns NULL for anything else. */
static uint8_t *read_ppm(const char *path, int *width, int *height) {
    FILE *file = fopen(path, "rb");
    uint8_t *pixels = NULL;
    if (!file) return NULL;
    if (getc(file) == 'P' && getc(file) == '6') {
        *width = read_number(file);
        *height = read_number(file);
        if (read_number(file) == 255 && *width > 0 && *height > 0 && *width <= 32768 && *height <= 32768) {
            size_t bytes = (size_t)*width * (size_t)*height * 3;
            pixels = malloc(bytes);
            if (pixels && fread(pixels, 1, bytes, file) != bytes) {
                free(pixels);
                pixels = NULL;
            }
        }
    }
    fclose(file);
    return pixels;
}

static int whole(float x) { return (int)(x + 0.5f) < 1 ? 1 : (int)(x + 0.5f); }

/* Scales the picture into the network's size, bilinear and with its aspect kept, on grey 114. */
static Fit letterbox(const uint8_t *from, int width, int height, uint8_t *to) {
    float across = (float)detector_width / (float)width, down = (float)detector_height / (float)height, ratio = across < down ? across : down;
    int columns = whole((float)width * ratio), rows = whole((float)height * ratio);
    Fit fit = {(float)columns / (float)width, (float)rows / (float)height, (detector_width - columns) / 2, (detector_height - rows) / 2};
    memset(to, 114, (size_t)detector_width * detector_height * 3);
    for (int y = 0; y < rows; y++) {
        float v = ((float)y + 0.5f) / fit.scale_y - 0.5f;
        v = v < 0 ? 0 : v > (float)(height - 1) ? (float)(height - 1) : v;
        int y0 = (int)v, y1 = y0 + 1 < height ? y0 + 1 : y0;
        uint8_t *line = to + ((size_t)(y + fit.top) * detector_width + (size_t)fit.left) * 3;
        for (int x = 0; x < columns; x++) {
            float u = ((float)x + 0.5f) / fit.scale_x - 0.5f;
            u = u < 0 ? 0 : u > (float)(width - 1) ? (float)(width - 1) : u;
            int x0 = (int)u, x1 = x0 + 1 < width ? x0 + 1 : x0;
            float a = u - (float)x0, b = v - (float)y0;
            const uint8_t *p = from + (size_t)y0 * (size_t)width * 3, *q = from + (size_t)y1 * (size_t)width * 3;
            for (int c = 0; c < 3; c++) {
                float upper = (float)p[3 * x0 + c] * (1 - a) + (float)p[3 * x1 + c] * a, lower = (float)q[3 * x0 + c] * (1 - a) + (float)q[3 * x1 + c] * a;
                line[3 * x + c] = (uint8_t)(upper * (1 - b) + lower * b + 0.5f);
            }
        }
    }
    return fit;
}

static int more_confident(const void *a, const void *b) {
    float p = ((const Object *)a)->confidence, q = ((const Object *)b)->confidence;
    return (p < q) - (p > q);
}

static float overlap(const Object *a, const Object *b) {
    float x1 = a->x1 > b->x1 ? a->x1 : b->x1, y1 = a->y1 > b->y1 ? a->y1 : b->y1;
    float x2 = a->x2 < b->x2 ? a->x2 : b->x2, y2 = a->y2 < b->y2 ? a->y2 : b->y2;
    float both = x2 > x1 && y2 > y1 ? (x2 - x1) * (y2 - y1) : 0;
    return both / ((a->x2 - a->x1) * (a->y2 - a->y1) + (b->x2 - b->x1) * (b->y2 - b->y1) - both);
}

/* The mean of the boxes of an object's class that overlap it, by confidence and overlap. */
static Object voted(const Object *object, const Object *candidates, int count) {
    Object mean = {0, 0, 0, 0, object->confidence, object->class};
    float total = 0;
    for (int i = 0; i < count; i++) {
        const Object *one = &candidates[i];
        float apart = one->class == object->class ? 1 - overlap(object, one) : 1;
        if (!(apart < 1)) continue;
        float weight = 1 - apart * apart / 0.05f / 256; /* its 256th power is exp(-apart^2 / 0.05) without a mathematics library, within 5 % */
        for (int power = 1; power < 256; power *= 2) weight *= weight;
        weight *= one->confidence;
        mean.x1 += weight * one->x1;
        mean.y1 += weight * one->y1;
        mean.x2 += weight * one->x2;
        mean.y2 += weight * one->y2;
        total += weight;
    }
    if (!(total > 0)) return *object;
    mean.x1 /= total;
    mean.y1 /= total;
    mean.x2 /= total;
    mean.y2 /= total;
    return mean;
}

/* Keeps boxes above `confidence`, and of two of one class that overlap by more than `most` the more confident: at most MOST. `found` has room for all
   boxes. Returns the number of those in `kept`, which are sorted. */
static int suppress(const float *boxes, float confidence, float most, int vote, Object *found, Object *kept) {
    int candidates = 0, left = 0;
    for (int i = 0; i < detector_boxes; i++) {
        const float *b = boxes + (size_t)i * detector_values;
        int best = 0;
        for (int c = 1; c < detector_classes; c++)
            if (b[5 + c] > b[5 + best]) best = c;
        if (b[4] * b[5 + best] > confidence)
            found[candidates++] = (Object){b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2, b[4] * b[5 + best], best};
    }
    qsort(found, (size_t)candidates, sizeof *found, more_confident);
    for (int i = 0; i < candidates && left < MOST; i++) {
        int free_of_others = 1;
        for (int j = 0; j < left && free_of_others; j++) free_of_others = kept[j].class != found[i].class || overlap(&kept[j], &found[i]) <= most;
        if (free_of_others) kept[left++] = found[i];
    }
    for (int i = 0; vote && i < left; i++) kept[i] = voted(&kept[i], found, candidates);
    return left;
}

static float inside(float x, int limit) { return x < 0 ? 0 : x > (float)limit ? (float)limit : x; }

/* What the command line asks for. */
typedef struct {
    const char *picture;
    float confidence;
    long threads;
    int vote;
} Asked;

/* Reads `picture.ppm [confidence] [threads] [vote]`; returns 0 for anything else. */
static int read_arguments(int count, char **arguments, Asked *asked) {
    char *end;
    *asked = (Asked){"", 0.25f, 1, 0};
    if (count > 2 && !strcmp(arguments[count - 1], "vote")) {
        asked->vote = 1;
        count--;
    }
    if (count < 2 || count > 4) return 0;
    asked->picture = arguments[1];
    if (count > 2) {
        asked->confidence = strtof(arguments[2], &end);
        if (*end || end == arguments[2] || !(asked->confidence >= 0 && asked->confidence <= 1)) return 0;
    }
    if (count > 3) {
        asked->threads = strtol(arguments[3], &end, 10);
        if (*end || end == arguments[3] || asked->threads < 1 || asked->threads > 1024) return 0;
    }
    return 1;
}

int main(int count, char **arguments) {
    Asked asked;
    if (!read_arguments(count, arguments, &asked))
        return fprintf(stderr, "usage: %s picture.ppm [confidence, 0 to 1] [threads, 1 or more] [vote]\n", arguments[0]), 2;
    int width, height;
    uint8_t *picture = read_ppm(asked.picture, &width, &height);
    if (!picture) return fprintf(stderr, "%s: not there, or no binary PPM of 8 bits (P6)\n", asked.picture), 2;
    detector_options options = {0};
    options.threads = (int)asked.threads;
    detector *instance;
    int error = detector_open(&options, &instance);
    if (error) return fprintf(stderr, "%s\n", detector_message(error)), 2;
    uint8_t *fitted = malloc((size_t)detector_width * detector_height * 3);
    float *boxes = malloc((size_t)detector_boxes * detector_values * sizeof *boxes);
    Object *found = malloc(detector_boxes * sizeof *found), kept[MOST];
    if (!fitted || !boxes || !found) return fprintf(stderr, "not enough memory\n"), 2;
    Fit fit = letterbox(picture, width, height, fitted);
    detector_run(instance, fitted, boxes);
    int objects = suppress(boxes, asked.confidence, 0.45f, asked.vote, found, kept);
    for (int i = 0; i < objects; i++) {
        const Object *o = &kept[i];
        printf("%s %.3f %.1f %.1f %.1f %.1f\n", detector_names[o->class], (double)o->confidence,
               (double)inside((o->x1 - (float)fit.left) / fit.scale_x, width), (double)inside((o->y1 - (float)fit.top) / fit.scale_y, height),
               (double)inside((o->x2 - (float)fit.left) / fit.scale_x, width), (double)inside((o->y2 - (float)fit.top) / fit.scale_y, height));
    }
    detector_close(instance);
    free(found);
    free(boxes);
    free(fitted);
    free(picture);
    return 0;
}
