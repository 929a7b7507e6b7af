// SPDX-License-Identifier: MIT
/* One allocation, divided into aligned pieces by a layout function that runs twice: with base NULL it measures, with memory it
 * assigns pointers. */
#ifndef BB_CORE_ARENA_H
#define BB_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define BB_ALIGN ((size_t)64)

typedef struct bb_arena {
    unsigned char *base; /* NULL while measuring; BB_ALIGN-aligned, not owned */
    size_t used;         /* bytes taken so far */
} bb_arena;

static inline size_t bb_align_up(size_t n) { return (n + BB_ALIGN - 1) & ~(BB_ALIGN - 1); }

/* Returns the next `bytes` bytes, BB_ALIGN-aligned; NULL while measuring. */
static inline void *bb_arena_alloc(bb_arena *a, size_t bytes) {
    size_t at = a->used;
    a->used += bb_align_up(bytes);
#ifdef __clang_analyzer__ /* it would follow the NULLs of measuring into the code that uses the pieces */
    return a->base + at;
#else
    return a->base ? (void *)(a->base + at) : NULL;
#endif
}

#endif
