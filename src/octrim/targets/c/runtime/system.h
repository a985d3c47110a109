/* Everything that is taken from outside: C11, and POSIX threads unless OCTRIM_NO_THREADS is defined; with OCTRIM_FREESTANDING no library at all. */
#include <stddef.h>
#include <stdint.h>
#ifdef OCTRIM_FREESTANDING
#define OCTRIM_NO_THREADS
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#else
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#endif
#ifdef OCTRIM_NO_THREADS
typedef uint64_t Claimed;
typedef uint32_t Counter;
#else
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
typedef _Atomic uint64_t Claimed;
typedef _Atomic uint32_t Counter;
#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif
#endif
