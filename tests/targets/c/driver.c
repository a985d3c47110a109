/* Runs a network given as tables, for builds that ctypes cannot load: ./driver PROGRAM PICTURE RESULT THREADS INSTANCES RUNS.
   Instances run at the same time, a thread of their own each; all results must be the same bytes. */
#include "library.c"

typedef struct {
    const Network *net;
    const float *weights;
    const uint8_t *picture;
    float *boxes;
    int threads, runs;
} Job;

static void *must(void *p) {
    if (!p) exit(3);
    return p;
}

static void *read_all(const char *path) {
    FILE *file = must(fopen(path, "rb"));
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *data = must(malloc(size + 1));
    if (fread(data, 1, size, file) != size) exit(3);
    fclose(file);
    return data;
}

static void *work(void *argument) {
    Job *job = argument;
    void *memory = must(malloc(octrim_memory(job->net, job->threads)));
    void *engine = must(octrim_open(job->net, job->weights, memory, job->threads));
    for (int i = 0; i < job->runs; i++) octrim_run(engine, job->picture, 1, job->boxes);
    octrim_close(engine);
    free(memory);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    int32_t *program = read_all(arguments[1]), *sizes = program + 8, *table = program + 13;
    Network net = {program[0], program[1], program[2], program[3], program[4], program[5], program[6], program[7], NULL, NULL, NULL, NULL};
    net.maps = (const Map *)table;
    net.step = (const Step *)(table += sizes[0]);
    net.stage = (const Stage *)(table += sizes[1]);
    net.taps = table += sizes[2];
    const float *weights = (const float *)(table += sizes[3]);
    uint8_t *picture = read_all(arguments[2]);
    size_t values = (size_t)net.boxes * (size_t)net.values;
    int instances = atoi(arguments[5]);
    Job job[8];
    for (int i = 0; i < instances; i++) job[i] = (Job){&net, weights, picture, must(malloc(values * sizeof(float))), atoi(arguments[4]), atoi(arguments[6])};
#ifdef OCTRIM_NO_THREADS
    for (int i = 0; i < instances; i++) work(&job[i]);
#else
    pthread_t thread[8];
    for (int i = 0; i < instances; i++)
        if (pthread_create(&thread[i], NULL, work, &job[i])) return 3;
    for (int i = 0; i < instances; i++) pthread_join(thread[i], NULL);
#endif
    for (int i = 1; i < instances; i++)
        if (memcmp(job[0].boxes, job[i].boxes, values * sizeof(float)) != 0) return 4;
    FILE *file = must(fopen(arguments[3], "wb"));
    fwrite(job[0].boxes, sizeof(float), values, file);
    fclose(file);
    for (int i = 0; i < instances; i++) free(job[i].boxes);
    free(picture);
    free(program);
    return 0;
}
