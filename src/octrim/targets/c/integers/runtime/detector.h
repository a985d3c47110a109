/* @title@ */
#ifndef DETECTOR_H
#define DETECTOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    detector_width = @width@,
    detector_height = @height@,
    detector_classes = @classes@,
    detector_memory = @memory@,        /* bytes that a run needs */
    detector_logits_count = @logits@,  /* bytes that detector_logits writes */
    detector_logit_steps = @logit_steps@,        /* a logit of objectness or of a class is its byte divided by this */
    detector_box_logit_steps = @box_logit_steps@ /* and one of a box's centre or size is its byte divided by this */
};

/* Names of the classes, UTF-8. */
extern const char *const detector_names[detector_classes];

/* A box: corners in sixteenths of a pixel of the input, score in shares of 65535. */
typedef struct {
    int16_t x1, y1, x2, y2;
    uint16_t score, label;
} detector_box;

/*
 * Finds boxes in a picture, RGB, detector_height x detector_width x 3 bytes. Returns how many.
 *
 * memory: detector_memory bytes at a multiple of 4, which only the caller uses in the meantime. threshold: least score, in shares of 65535. overlap: IoU above which a
 * box suppresses others of its class, in shares of 65536. boxes: room for `most` boxes, which is also how many candidates suppression looks at; the
 * best come first. Nothing else is written to, nothing is allocated, no float is computed.
 */
int detector_run(void *memory, const uint8_t *pixels, uint16_t threshold, uint16_t overlap, detector_box *boxes, int most);

/*
 * The logits of all levels one after the other, each [h][w][anchors x (5 + classes)], in steps: centre x, centre y, width and height of the box in
 * detector_box_logit_steps, objectness and classes in detector_logit_steps. memory, pixels: as above.
 */
void detector_logits(void *memory, const uint8_t *pixels, int8_t *logits);

#ifdef __cplusplus
}
#endif

#endif
