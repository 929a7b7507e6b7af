// SPDX-License-Identifier: MIT
#include "model/ngram.h"

#include "core/arena.h"
#include "model/config.h"

/* Multiplication by the golden ratio spreads keys that differ anywhere over the high bits of the product (Knuth, volume 3, 6.4). */
static const uint64_t golden_ratio = 0x9E3779B97F4A7C15u;

void bb_ngram_index(const bb_config *c, const uint8_t *text, int64_t before, int64_t n, int32_t *index) {
    int64_t count = bb_ngram_count(c);
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = text[i];
        for (int64_t k = 0; k < count; k++) {
            bool found = before + i > k;
            if (found) key |= (uint64_t)text[i - k - 1] << 8 * (k + 1);
            index[i * count + k] =
                found ? (int32_t)((k << c->ngram_bits) + (int64_t)(key * golden_ratio >> (64 - c->ngram_bits))) : -1;
        }
    }
}

static size_t layout(const bb_config *c, void *memory, bb_ngram_table *out) {
    bb_arena arena = {.base = memory};
    size_t rows = (size_t)bb_config_ngram_rows(c);
    *out = (bb_ngram_table){.R = (int64_t)rows, .C = c->d_model};
    if (rows == 0) return 0;
    out->codes = bb_arena_alloc(&arena, rows * (size_t)c->d_model);
    out->scales = bb_arena_alloc(&arena, rows * sizeof *out->scales);
    return arena.used;
}

size_t bb_ngram_bytes(const bb_config *config) {
    bb_ngram_table ignored;
    return layout(config, NULL, &ignored);
}

bb_ngram_table bb_ngram_codes(const bb_config *config, void *memory) {
    bb_ngram_table table;
    layout(config, memory, &table);
    return table;
}
