/* An instance: memory, and threads that claim chunks.

   Every stage has a word with its unclaimed chunks. The calling thread takes from the front, helpers from the end; who comes late, or not at all, is
   not waited for: only chunks that somebody has claimed are. Chunks are the same for any number of threads, and so are the results, bit for bit. */
#define MOST_THREADS 64
#define LINE 64 /* bytes of a cache line */

typedef struct {
    _Alignas(LINE) Claimed claim; /* run << 32 | first unclaimed chunk << 16 | end of the unclaimed */
    Counter done;                 /* chunks done in all runs */
} Turn;

typedef struct {
    struct Engine *engine;
    int number;
} Helper;

typedef struct Engine {
    const Network *net;
    const float *weights;
    const uint8_t *image;
    float *boxes, *arena;
    Turn *turns;
    size_t scratch; /* floats from one thread's scratch to the next one's */
    int threads, started;
    Counter run;
#ifndef OCTRIM_NO_THREADS
    Counter quit;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread[MOST_THREADS];
    Helper helper[MOST_THREADS];
#endif
} Engine;

static void run_chunk(const Work *w, const Stage *stage, int chunk) {
    int first = chunk * stage->size, last = first + stage->size < stage->extent ? first + stage->size : stage->extent;
    for (int i = 0; i < stage->steps; i++) {
        const Step *s = &w->net->step[stage->first + i];
        int y0 = first * s->rows, y1 = last * s->rows;
        switch (s->kind) {
        case IMAGE: image_step(w, s, y0, y1); break;
        case STEM: stem_step(w, s, y0, y1); break;
        case PARITY: parity_step(w, s, y0, y1); break;
        case CONVOLUTION: convolution_step(w, s, y0, y1); break;
        case WINOGRAD: winograd_step(w, s, y0, y1); break;
        case PLAIN: plain_step(w, s, y0, y1); break;
        case ADD: add_step(w, s, y0, y1); break;
        case POOL: pool_step(w, s, y0, y1); break;
        case UPSAMPLE: upsample_step(w, s, y0, y1); break;
        default: head_step(w, s, y0, y1);
        }
    }
}

#ifndef OCTRIM_NO_THREADS
/* A chunk of the stage for this thread, -1 when all are claimed or a later run has begun. */
static int claim(Turn *turn, int chunks, uint32_t run, int number) {
    uint64_t seen = atomic_load_explicit(&turn->claim, memory_order_relaxed), next;
    int chunk;
    do {
        uint32_t of = (uint32_t)(seen >> 32);
        if ((int32_t)(of - run) > 0) return -1;
        next = of == run ? seen : (uint64_t)run << 32 | (uint64_t)chunks;
        int first = (int)(next >> 16 & 0xffff), end = (int)(next & 0xffff);
        if (first >= end) return -1;
        chunk = number == 0 ? first : end - 1;
        next = number == 0 ? next + (1 << 16) : next - 1;
    } while (!atomic_compare_exchange_weak_explicit(&turn->claim, &seen, next, memory_order_acq_rel, memory_order_relaxed));
    return chunk;
}
#endif

static void run_stages(Engine *e, int number, uint32_t run) {
    float *scratch = e->arena + e->net->arena + (size_t)number * e->scratch;
    for (int i = 0; i < e->net->stages; i++) {
        const Stage *stage = &e->net->stage[i];
#ifndef OCTRIM_NO_THREADS
        if (e->threads > 1) {
            Turn *turn = &e->turns[i];
            uint32_t mine = 0, all = run * (uint32_t)stage->chunks;
            for (int chunk; (chunk = claim(turn, stage->chunks, run, number)) >= 0; mine++) {
                Work w = {e->net, e->weights, e->arena, scratch, e->image, e->boxes};
                run_chunk(&w, stage, chunk);
            }
            if (mine) atomic_fetch_add_explicit(&turn->done, mine, memory_order_acq_rel);
            for (int tries = 0; (int32_t)(atomic_load_explicit(&turn->done, memory_order_acquire) - all) < 0; tries++) {
                if (tries < 4000) RELAX();
                else sched_yield();
            }
            continue;
        }
#endif
        Work w = {e->net, e->weights, e->arena, scratch, e->image, e->boxes};
        for (int chunk = 0; chunk < stage->chunks; chunk++) run_chunk(&w, stage, chunk);
    }
    (void)run;
}

#ifndef OCTRIM_NO_THREADS
/* A helper looks for the next run for some ten microseconds, then sleeps until it is woken. */
static void *help(void *argument) {
    Helper *self = argument;
    Engine *e = self->engine;
    uint32_t seen = 0;
    for (;;) {
        for (int i = 0; i < 5000 && atomic_load_explicit(&e->run, memory_order_acquire) == seen; i++) RELAX();
        if (atomic_load_explicit(&e->run, memory_order_acquire) == seen) {
            pthread_mutex_lock(&e->lock);
            while (atomic_load_explicit(&e->run, memory_order_acquire) == seen) pthread_cond_wait(&e->more, &e->lock);
            pthread_mutex_unlock(&e->lock);
        }
        seen = atomic_load_explicit(&e->run, memory_order_acquire);
        if (atomic_load_explicit(&e->quit, memory_order_acquire)) return NULL;
        run_stages(e, self->number, seen);
    }
}
static uint32_t next_run(Engine *e) {
    pthread_mutex_lock(&e->lock);
    uint32_t run = atomic_fetch_add_explicit(&e->run, 1, memory_order_acq_rel) + 1;
    pthread_cond_broadcast(&e->more);
    pthread_mutex_unlock(&e->lock);
    return run;
}
#endif

static void engine_run(Engine *e, const uint8_t *image, float *boxes) {
    uint32_t run = 0;
    e->image = image;
    e->boxes = boxes;
#ifndef OCTRIM_NO_THREADS
    if (e->threads > 1) run = next_run(e);
#endif
    run_stages(e, 0, run);
}

static size_t rounded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

/* Bytes of an instance, of which `extra` are the caller's own. */
static size_t engine_memory(const Network *net, int threads, size_t extra) {
    size_t scratch = rounded((size_t)net->scratch * sizeof(float)) + LINE, arena = rounded((size_t)net->arena * sizeof(float));
    return LINE + rounded(sizeof(Engine)) + (size_t)net->stages * sizeof(Turn) + rounded(extra) + arena + (size_t)threads * scratch + LINE;
}

static void engine_close(Engine *e) {
#ifndef OCTRIM_NO_THREADS
    if (e->threads > 1) {
        atomic_store_explicit(&e->quit, 1, memory_order_release);
        next_run(e);
        for (int i = 1; i < e->started; i++) pthread_join(e->thread[i], NULL);
        pthread_cond_destroy(&e->more);
        pthread_mutex_destroy(&e->lock);
    }
#endif
    e->threads = 0;
}

/* Lays an instance out in `memory`; NULL when a thread cannot be started. *extra: where the caller's own bytes are. */
static Engine *engine_open(const Network *net, const float *weights, void *memory, int threads, size_t extra_bytes, void **extra) {
    char *at = (char *)rounded((size_t)(uintptr_t)memory);
    Engine *e = (Engine *)at;
    memset(e, 0, sizeof *e);
    at += rounded(sizeof(Engine));
    e->turns = (Turn *)at;
    memset(e->turns, 0, (size_t)net->stages * sizeof(Turn));
    at += (size_t)net->stages * sizeof(Turn);
    if (extra) *extra = at;
    at += rounded(extra_bytes);
    e->net = net;
    e->weights = weights;
    e->arena = (float *)at;
    e->threads = threads;
    e->scratch = (rounded((size_t)net->scratch * sizeof(float)) + LINE) / sizeof(float);
    memset(at, 0, rounded((size_t)net->arena * sizeof(float)) + (size_t)threads * e->scratch * sizeof(float));
#ifndef OCTRIM_NO_THREADS
    if (threads > 1) {
        pthread_mutex_init(&e->lock, NULL);
        pthread_cond_init(&e->more, NULL);
        for (e->started = 1; e->started < threads; e->started++) {
            e->helper[e->started] = (Helper){e, e->started};
            if (pthread_create(&e->thread[e->started], NULL, help, &e->helper[e->started])) {
                engine_close(e);
                return NULL;
            }
        }
    }
#endif
    return e;
}
