/* An instance: memory, and threads that claim chunks.

   In every stage each thread has a share of the chunks, the same part of the picture in all stages, so that it reads what it wrote itself: to fetch a
   line from another core's cache takes as long as 100 to 500 multiply-adds of vectors. A thread that is done with its share takes from the others', so
   that who comes late, or not at all, is not waited for: only chunks that somebody has claimed are. Chunks are the same for any number of threads, and
   so are the results, bit for bit. */
#define MOST_THREADS 64
#define LINE 64      /* number of bytes in a cache line */
#define PATIENCE 16  /* number of looks at the others' work before some of it is taken over */

/* Progress of one thread in one stage. The words have lines of their own: the first is seldom read by others, the second while they wait. */
typedef struct {
    _Alignas(LINE) Claimed claim; /* run << 32 | first unclaimed chunk of its share << 16 | end of the unclaimed */
    _Alignas(LINE) Counter done;  /* chunks that it has done in all runs, whosesoever share they were of */
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

/* Copies rows of the other band into the margins above the first and below the last of `rows` rows. */
static void copy_halo(const Work *w, const Step *s, int first, int last, int band, int rows) {
    const int32_t *above = w->net->taps + s->halo, *below = above + s->above;
    int n = s->reach * s->pitch, from_above = first && band > 0 ? s->above : 0, from_below = last && band + 1 < w->net->bands ? s->below : 0;
    const float *other = band > 0 ? w->arena - w->net->arena + w->row * s->pitch - n : w->arena + w->net->arena;
    for (int i = 0; i < from_above; i++) memcpy(w->arena + above[i] - n, other + above[i], (size_t)n * sizeof(float));
    for (int i = 0; i < from_below; i++) memcpy(w->arena + below[i] + rows * s->pitch, other + below[i], (size_t)n * sizeof(float));
}

#define STEP(kind, run)                     \
    case kind:                              \
        if (HAS(KINDS, kind)) run(w, s, y0, y1); \
        break;
static void run_chunk(Work *w, float *arena, const Stage *stage, int chunk) {
    int bands = stage->planes ? 1 : w->net->bands, band = chunk / (stage->chunks / bands), index = chunk % (stage->chunks / bands);
    int rows = band == 0 ? stage->split : stage->extent - stage->split;
    int first = index * stage->size, last = first + stage->size < rows ? first + stage->size : rows;
    if (first >= last) return;
    w->arena = arena + (size_t)band * (size_t)w->net->arena;
    for (int i = 0; i < stage->steps; i++) {
        const Step *s = &w->net->step[stage->first + i];
        int y0 = first * s->rows, y1 = last * s->rows;
        w->row = band * stage->split * s->rows;
        if (s->reach) copy_halo(w, s, first == 0, last == rows, band, rows * s->rows);
        switch (s->kind) {
        STEP(IMAGE, image_step)
        STEP(STEM, stem_step)
        STEP(PARITY, parity_step)
        STEP(CONVOLUTION, convolution_step)
        STEP(DEPTHWISE, depthwise_step)
        STEP(WINOGRAD, winograd_step)
        STEP(PLAIN, plain_step)
        STEP(ADD, add_step)
        STEP(POOL, pool_step)
        STEP(UPSAMPLE, upsample_step)
        STEP(HEAD, head_step)
        }
    }
}

#ifndef OCTRIM_NO_THREADS
/* Claims a chunk of the share `first` .. `end`, from the front for its owner, else from the end; -1 when all are claimed or a later run has begun. */
static int claim(Turn *turn, int first, int end, uint32_t run, int own) {
    uint64_t seen = atomic_load_explicit(&turn->claim, memory_order_relaxed), next;
    do {
        uint32_t of = (uint32_t)(seen >> 32);
        if ((int32_t)(of - run) > 0) return -1;
        next = of == run ? seen : (uint64_t)run << 32 | (uint64_t)first << 16 | (uint64_t)end;
        first = (int)(next >> 16 & 0xffff), end = (int)(next & 0xffff);
        if (first >= end) return -1;
        next = own ? next + (1 << 16) : next - 1;
    } while (!atomic_compare_exchange_weak_explicit(&turn->claim, &seen, next, memory_order_acq_rel, memory_order_relaxed));
    return own ? first : end - 1;
}

/* Does what is left of the share of thread `owner`. */
static void work_through(Engine *e, Work *w, const Stage *stage, Turn *turns, int number, int owner, uint32_t run) {
    int first = owner * stage->chunks / e->threads, end = (owner + 1) * stage->chunks / e->threads;
    for (int chunk; (chunk = claim(&turns[owner], first, end, run, owner == number)) >= 0;) {
        w->image = e->image; /* A run that somebody has a chunk of is not over, so that these are this run's. */
        w->boxes = e->boxes;
        run_chunk(w, e->arena, stage, chunk);
        atomic_store_explicit(&turns[number].done, atomic_load_explicit(&turns[number].done, memory_order_relaxed) + 1, memory_order_release);
    }
}

static int all_done(const Engine *e, Turn *turns, uint32_t all) {
    uint32_t done = 0;
    for (int i = 0; i < e->threads; i++) done += atomic_load_explicit(&turns[i].done, memory_order_acquire);
    return (int32_t)(done - all) >= 0;
}

static void share_stage(Engine *e, Work *w, int i, int number, uint32_t run) {
    const Stage *stage = &e->net->stage[i];
    Turn *turns = e->turns + i * e->threads;
    work_through(e, w, stage, turns, number, number, run);
    for (int tries = 0; !all_done(e, turns, run * (uint32_t)stage->chunks); tries++) {
        if (tries == PATIENCE)
            for (int k = 1; k < e->threads; k++) work_through(e, w, stage, turns, number, (number + k) % e->threads, run);
        else if (tries < 4000) RELAX();
        else sched_yield();
    }
}
#endif

static void run_stages(Engine *e, int number, uint32_t run) {
    float *scratch = e->arena + (size_t)e->net->bands * (size_t)e->net->arena + (size_t)number * e->scratch;
    Work w = {.net = e->net, .weights = e->weights, .scratch = scratch};
    for (int i = 0; i < e->net->stages; i++) {
        const Stage *stage = &e->net->stage[i];
#ifndef OCTRIM_NO_THREADS
        if (e->threads > 1) {
            share_stage(e, &w, i, number, run);
            continue;
        }
#endif
        w.image = e->image;
        w.boxes = e->boxes;
        for (int chunk = 0; chunk < stage->chunks; chunk++) run_chunk(&w, e->arena, stage, chunk);
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

static size_t turns_bytes(const Network *net, int threads) { return (size_t)net->stages * (size_t)threads * sizeof(Turn); }

/* Number of bytes of an instance, of which `extra` are the caller's own. */
static size_t engine_memory(const Network *net, int threads, size_t extra) {
    size_t scratch = rounded((size_t)net->scratch * sizeof(float)) + LINE, arena = rounded((size_t)net->bands * (size_t)net->arena * sizeof(float));
    return LINE + rounded(sizeof(Engine)) + turns_bytes(net, threads) + rounded(extra) + arena + (size_t)threads * scratch + LINE;
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
    memset(e->turns, 0, turns_bytes(net, threads));
    at += turns_bytes(net, threads);
    if (extra) *extra = at;
    at += rounded(extra_bytes);
    e->net = net;
    e->weights = weights;
    e->arena = (float *)at;
    e->threads = threads;
    e->scratch = (rounded((size_t)net->scratch * sizeof(float)) + LINE) / sizeof(float);
    memset(at, 0, (size_t)net->bands * (size_t)net->arena * sizeof(float) + (size_t)threads * e->scratch * sizeof(float));
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
