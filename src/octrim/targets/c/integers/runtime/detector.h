/* @title@

   Two networks in one program: compile each detector.c with a name of its own, -DOCTRIM_NAME=faces, and include each detector.h behind a
   #define OCTRIM_NAME faces and before an #undef of it; the functions are then faces_run and faces_logits. */
#ifndef OCTRIM_DEFAULT_NAME
#ifndef OCTRIM_NAME
#define OCTRIM_NAME detector
#define OCTRIM_DEFAULT_NAME
#endif
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef OCTRIM_JOIN
#define OCTRIM_JOINED(a, b) a##_##b
#define OCTRIM_JOIN(a, b) OCTRIM_JOINED(a, b)
#define OCTRIM_(name) OCTRIM_JOIN(OCTRIM_NAME, name)
#endif

enum {
    OCTRIM_(width) = @width@,
    OCTRIM_(height) = @height@,
    OCTRIM_(classes) = @classes@,
    OCTRIM_(memory) = @memory@,       /* bytes that a run needs */
    OCTRIM_(logits_count) = @logits@, /* bytes that OCTRIM_(logits) writes */
    OCTRIM_(logit_steps) = @logit_steps@,         /* a logit of objectness or of a class is its byte divided by this */
    OCTRIM_(box_logit_steps) = @box_logit_steps@ /* and one of a box's centre or size is its byte divided by this */
};

/* Names of the classes, UTF-8. */
extern const char *const OCTRIM_(names)[OCTRIM_(classes)];

/* A box: corners in sixteenths of a pixel of the input, score in shares of 65535. */
typedef struct {
    int16_t x1, y1, x2, y2;
    uint16_t score, label;
} OCTRIM_(box);

/*
 * Finds boxes in a picture, RGB, OCTRIM_(height) x OCTRIM_(width) x 3 bytes. Returns how many.
 *
 * memory: OCTRIM_(memory) bytes at a multiple of 4, which only the caller uses in the meantime. threshold: least score, in shares of 65535.
 * overlap: IoU above which a box suppresses others of its class, in shares of 65536. boxes: room for `most` boxes, which is also how many candidates
 * suppression looks at; the best come first. Nothing else is written to, nothing is allocated, no float is computed.
 */
int OCTRIM_(run)(void *memory, const uint8_t *pixels, uint16_t threshold, uint16_t overlap, OCTRIM_(box) *boxes, int most);

/*
 * The logits of all levels one after the other, each [h][w][anchors x (5 + classes)], in steps: centre x, centre y, width and height of the box in
 * OCTRIM_(box_logit_steps), objectness and classes in OCTRIM_(logit_steps). memory, pixels: as above.
 */
void OCTRIM_(logits)(void *memory, const uint8_t *pixels, int8_t *logits);

#ifdef __cplusplus
}
#endif

#endif
