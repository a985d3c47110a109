/* The functions of detector.h. */
struct OCTRIM_NAME {
    Engine *engine;
    void *allocated;
};

#if WEIGHTS_IN_FILE
/* Head of weights.bin: these 24 bytes, then the weights, in the byte order of the processor. */
typedef struct {
    char magic[8];
    uint64_t checksum; /* of the weights: sum of word i times 2 i + 1 */
    uint64_t count;
} WeightsHeader;

static int check_weights(const WeightsHeader *header, const float *values) {
    if (memcmp(header->magic, "OCTRIMW1", 8) != 0 || header->count != WEIGHTS || header->checksum != WEIGHTS_CHECKSUM) return OCTRIM_(weights_foreign);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < WEIGHTS; i++) {
        uint32_t word;
        memcpy(&word, values + i, sizeof word);
        sum += word * (2 * i + 1);
    }
    return sum == WEIGHTS_CHECKSUM ? OCTRIM_(fine) : OCTRIM_(weights_truncated);
}

#ifndef OCTRIM_FREESTANDING
static int read_weights(const char *path, float *values) {
    FILE *file = fopen(path ? path : "weights.bin", "rb");
    WeightsHeader header;
    int error = OCTRIM_(weights_truncated);
    if (!file) return OCTRIM_(weights_missing);
    if (fread(&header, sizeof header, 1, file) == 1) {
        if (header.count != WEIGHTS) error = OCTRIM_(weights_foreign);
        else if (fread(values, sizeof(float), WEIGHTS, file) == WEIGHTS) error = check_weights(&header, values);
    }
    fclose(file);
    return error;
}
#endif
#endif

/* Number of an instance's bytes that are not the engine's: the instance itself, and weights from a file. */
static size_t own_bytes(const OCTRIM_(options) *options) {
    size_t bytes = rounded(sizeof(struct OCTRIM_NAME));
#if WEIGHTS_IN_FILE
    if (!options || !options->weights) bytes += rounded(WEIGHTS * sizeof(float));
#else
    (void)options;
#endif
    return bytes;
}

size_t OCTRIM_(memory)(int threads) { return engine_memory(&network, threads < 1 ? 1 : threads, own_bytes(NULL)); }

int OCTRIM_(open)(const OCTRIM_(options) *options, OCTRIM_NAME **instance) {
    OCTRIM_(options) chosen = {0};
    if (options) chosen = *options;
    int threads = chosen.threads == 0 ? 1 : chosen.threads, error = OCTRIM_(fine);
    *instance = NULL;
    if (threads < 1 || threads > MOST_THREADS) return OCTRIM_(bad_threads);
#ifdef OCTRIM_NO_THREADS
    threads = 1;
#endif
    size_t own = own_bytes(&chosen), bytes = engine_memory(&network, threads, own);
    const float *weights = NULL;
#if WEIGHTS_IN_FILE
    if (chosen.weights) {
        WeightsHeader header; /* a copy, because the weights need only stand at a multiple of 4 bytes */
        if (chosen.weights_bytes < sizeof header + WEIGHTS * sizeof(float)) return OCTRIM_(weights_truncated);
        memcpy(&header, chosen.weights, sizeof header);
        weights = (const float *)(const void *)((const char *)chosen.weights + sizeof header);
        if ((error = check_weights(&header, weights))) return error;
    }
#else
    weights = compiled_weights;
#endif
    if (chosen.memory && chosen.memory_bytes < bytes) return OCTRIM_(small_memory);
    void *memory = chosen.memory;
#ifndef OCTRIM_FREESTANDING
    if (!memory) memory = malloc(bytes);
#endif
    if (!memory) return OCTRIM_(no_memory);
    void *extra;
    Engine *engine = engine_open(&network, weights, memory, threads, own, &extra);
    if (!engine) error = OCTRIM_(no_thread);
#if WEIGHTS_IN_FILE
    if (engine && !weights) {
        float *room = (float *)((char *)extra + rounded(sizeof(struct OCTRIM_NAME)));
#ifdef OCTRIM_FREESTANDING
        error = OCTRIM_(weights_missing);
#else
        error = read_weights(chosen.weights_path, room);
#endif
        engine->weights = room;
        if (error) engine_close(engine);
    }
#endif
    if (error) {
#ifndef OCTRIM_FREESTANDING
        if (!chosen.memory) free(memory);
#endif
        return error;
    }
    *instance = extra;
    **instance = (struct OCTRIM_NAME){engine, chosen.memory ? NULL : memory};
    return OCTRIM_(fine);
}

void OCTRIM_(run)(OCTRIM_NAME *instance, const uint8_t *picture, float *boxes) { engine_run(instance->engine, picture, boxes); }

void OCTRIM_(close)(OCTRIM_NAME *instance) {
    if (!instance) return;
    engine_close(instance->engine);
#ifndef OCTRIM_FREESTANDING
    free(instance->allocated);
#endif
}

void OCTRIM_(sizes)(int32_t sizes[4]) {
    const int32_t own[4] = {OCTRIM_(width), OCTRIM_(height), OCTRIM_(boxes), OCTRIM_(values)};
    memcpy(sizes, own, sizeof own);
}

const char *OCTRIM_(message)(int error) {
    static const char *const messages[] = {"no error",
                                           "threads: expected 1 to 64",
                                           "not enough memory",
                                           "the memory given is smaller than what the function memory asks for",
                                           "a thread cannot be started",
                                           "weights.bin: no such file",
                                           "weights.bin: it ends early or is damaged",
                                           "weights.bin: it is not of this export of the network"};
    return error >= 0 && error < (int)(sizeof messages / sizeof *messages) ? messages[error] : "unknown error";
}
