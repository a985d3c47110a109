/* Finds boxes in a picture of exactly the network's size: ./example picture.ppm (binary PPM, P6). Threshold .25, suppression above an IoU of .45. */
#include <stdio.h>
#include <stdlib.h>

#include "detector.h"

static uint32_t memory[(detector_memory + 3) / 4];
static uint8_t pixels[detector_height * detector_width * 3];

int main(int argc, char **argv)
{
    detector_box boxes[100];
    int width, height;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file || fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF || width != detector_width || height != detector_height ||
        fread(pixels, sizeof pixels, 1, file) != 1) {
        fprintf(stderr, "usage: example picture.ppm (P6, %d x %d)\n", detector_width, detector_height);
        return 2;
    }
    int count = detector_run(memory, pixels, 16384, 29491, boxes, 100);
    for (int i = 0; i < count; i++)
        printf("%s %.3f  %.1f %.1f %.1f %.1f\n", detector_names[boxes[i].label], boxes[i].score / 65535.0, boxes[i].x1 / 16.0, boxes[i].y1 / 16.0,
               boxes[i].x2 / 16.0, boxes[i].y2 / 16.0);
    return 0;
}
