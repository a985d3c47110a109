/* The runtime as a library that runs any network, given as tables: what `--runtime c` compiles once for a machine. */
#include "system.h"
#include "vectors.h"
#include "network.h"
#include "maps.h"
#include "picture.h"
#include "convolution.h"
#include "depthwise.h"
#include "winograd.h"
#include "stem.h"
#include "head.h"
#include "run.h"

size_t octrim_memory(const Network *net, int threads);
void *octrim_open(const Network *net, const float *weights, void *memory, int threads);
void octrim_run(void *engine, const uint8_t *images, int count, float *boxes);
void octrim_close(void *engine);
int octrim_lanes(void);

size_t octrim_memory(const Network *net, int threads) { return engine_memory(net, threads, 0); }
void *octrim_open(const Network *net, const float *weights, void *memory, int threads) { return engine_open(net, weights, memory, threads, 0, NULL); }
void octrim_run(void *engine, const uint8_t *images, int count, float *boxes) {
    Engine *e = engine;
    size_t picture = (size_t)e->net->height * (size_t)e->net->width * 3, result = (size_t)e->net->boxes * (size_t)e->net->values;
    for (int i = 0; i < count; i++) engine_run(e, images + (size_t)i * picture, boxes + (size_t)i * result);
}
void octrim_close(void *engine) { engine_close(engine); }
int octrim_lanes(void) { return VL; }
