/*
 * Firmware without an operating system and without a C library: finds boxes in one picture and prints them through the debugger (semihosting), with
 * the ticks of the board's timer, and how many bytes of stack were used. One tick of SysTick is 40 ns; qemu lets 1 ns pass for each instruction.
 */
#include "detector.h"
#include "picture.h"

#include <stddef.h>

extern uint32_t stack_top;
int main(void);

static void reset(void)
{
    main();
    for (;;) __asm__ volatile("bkpt 0xab" : : "r"(0));
}

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&stack_top, reset};

void *memcpy(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t count)
{
    for (size_t i = 0; i < count; i++) ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

/* An operation of the debugger: 4 prints text, 0x18 ends the program. */
static void semihosting(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(int32_t value, char end)
{
    char text[14], *p = text + 12;
    uint32_t rest = value < 0 ? -(uint32_t)value : (uint32_t)value;
    text[12] = end;
    text[13] = 0;
    do *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) *--p = '-';
    semihosting(4, p);
}

#define SYSTICK ((volatile uint32_t *)0xe000e010) /* control, reload, current */

static uint32_t memory[(detector_memory + 3) / 4];
static detector_box boxes[100];

int main(void)
{
    enum { stack_words = 4096 };
    volatile uint32_t *bottom = (volatile uint32_t *)((uint32_t)&stack_top - 4 * stack_words);
    for (int i = 0; i < stack_words - 64; i++) bottom[i] = 0xa5a5a5a5;
    SYSTICK[1] = 0xffffff;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    int count = detector_run(memory, picture, 16384, 29491, boxes, 100);
    uint32_t ticks = 0xffffff - SYSTICK[2];
    int untouched = 0;
    while (untouched < stack_words && bottom[untouched] == 0xa5a5a5a5) untouched++;
    print((int32_t)ticks, ' ');
    print(4 * (stack_words - untouched), '\n');
    for (int i = 0; i < count; i++) {
        print(boxes[i].x1, ' ');
        print(boxes[i].y1, ' ');
        print(boxes[i].x2, ' ');
        print(boxes[i].y2, ' ');
        print(boxes[i].score, ' ');
        print(boxes[i].label, '\n');
    }
    semihosting(0x18, (const void *)0x20026);
    return 0;
}
