/* @title@

   Pictures are @width@ x @height@ pixels, three bytes each (red, green, blue), row by row. The result is OCTRIM_(boxes) boxes of OCTRIM_(values) floats: centre
   x and y, width, height in pixels of the picture, objectness, and a score per class. Boxes overlap until they are suppressed (example.c does).

       detector *d;
       int error = detector_open(NULL, &d);
       if (error) puts(detector_message(error));
       detector_run(d, picture, boxes);
       detector_close(d);

   Two networks in one program: compile each detector.c with a name of its own, -DOCTRIM_NAME=faces, and include each detector.h behind a
   #define OCTRIM_NAME faces and before an #undef of it; the functions are then faces_open, faces_run and so on. */
#ifndef OCTRIM_DEFAULT_NAME
#ifndef OCTRIM_NAME
#define OCTRIM_NAME detector
#define OCTRIM_DEFAULT_NAME
#endif
#include <stddef.h>
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
    OCTRIM_(boxes) = @boxes@,
    OCTRIM_(values) = @values@, /* 5 + classes */
    OCTRIM_(classes) = @classes@,
    OCTRIM_(threads) = 64 /* the most that an instance may have */
};

/* Results of open; message says in words what they mean. */
enum {
    OCTRIM_(fine),
    OCTRIM_(bad_threads),
    OCTRIM_(no_memory),
    OCTRIM_(small_memory),
    OCTRIM_(no_thread),
    OCTRIM_(weights_missing),
    OCTRIM_(weights_truncated),
    OCTRIM_(weights_foreign)
};

/* An instance has memory and threads of its own and serves one caller at a time. Any number of instances may run at once. */
typedef struct OCTRIM_NAME OCTRIM_NAME;

/* Options of open. Zeros mean what a program usually wants. */
typedef struct {
    int threads;              /* 1 to 64; 0 is 1 */
    void *memory;             /* at least OCTRIM_(memory)(threads) bytes, any alignment; NULL: taken from malloc */
    size_t memory_bytes;
    const void *weights;      /* contents of weights.bin, at a multiple of 4; NULL: compiled in, or read from weights_path */
    size_t weights_bytes;
    const char *weights_path; /* NULL: weights.bin in the current folder */
} OCTRIM_(options);

/* Number of bytes that an instance needs. */
size_t OCTRIM_(memory)(int threads);

/* Makes an instance; options may be NULL. Returns 0, or what is wrong. Nothing is allocated afterwards. */
int OCTRIM_(open)(const OCTRIM_(options) *options, OCTRIM_NAME **instance);

/* boxes: room for OCTRIM_(boxes) * OCTRIM_(values) floats. The same picture gives the same bits, however many threads there are. */
void OCTRIM_(run)(OCTRIM_NAME *instance, const uint8_t *picture, float *boxes);

/* Ends the threads and frees what open allocated. */
void OCTRIM_(close)(OCTRIM_NAME *instance);

/* One line of text about a result of open. */
const char *OCTRIM_(message)(int error);

/* Width, height, boxes and values, for programs that load a shared library and cannot see the constants above. */
void OCTRIM_(sizes)(int32_t sizes[4]);

/* Names of the classes. */
extern const char *const OCTRIM_(names)[OCTRIM_(classes)];

#ifdef __cplusplus
}
#endif
#endif
