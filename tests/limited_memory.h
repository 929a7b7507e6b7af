// SPDX-License-Identifier: MIT
/* An allocator that fails from a given call on, for json_set_alloc_funcs. */
#ifndef BB_TESTS_LIMITED_MEMORY_H
#define BB_TESTS_LIMITED_MEMORY_H

#include <stdlib.h>

static int allocations_left;

static inline void *limited_malloc(size_t size) { return allocations_left-- > 0 ? malloc(size) : NULL; }

#endif
