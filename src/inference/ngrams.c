// SPDX-License-Identifier: MIT
#include "inference/ngrams.h"

#include <stdlib.h>

static const int orders[BB_NGRAM_ORDERS] = {2, 3, 4, 5, 6, 8, 11, 16, BB_NGRAM_MAX_LENGTH};

/* Exponential decay of the statistics, per prediction, because texts change. */
static const double decay = 1 - 1.0 / 256;

bb_status bb_ngrams_open(bb_ngrams *g, bb_error *err) {
    *g = (bb_ngrams){.table = calloc((size_t)BB_NGRAM_ORDERS << BB_NGRAM_BITS, sizeof *g->table)};
    for (int o = 0; o < BB_NGRAM_ORDERS; o++)
        for (int n = 0; n < BB_NGRAM_COUNTS; n++) { /* prior: two tries; longer and more frequent contexts do better */
            g->tries[o][n] = 2;
            g->hits[o][n] = 2 * (0.25 + 0.05 * o + 0.05 * n);
        }
    return g->table ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for the n-grams of a text");
}

void bb_ngrams_close(bb_ngrams *g) {
    free(g->table);
    g->table = NULL;
}

/* Finds the slots of the contexts that end before `end`, and their check values. Returns their number. */
static int find(const bb_ngrams *g, const uint8_t *end, int64_t length, bb_ngram *slots[BB_NGRAM_ORDERS],
                uint16_t checks[BB_NGRAM_ORDERS]) {
    uint64_t h = 0;
    int count = 0;
    for (int i = 1; count < BB_NGRAM_ORDERS && i <= length; i++) {
        h = (h + end[-i] + 1) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
        if (i != orders[count]) continue;
        uint64_t mixed = h * 0xD6E8FEB86659FD93u;
        slots[count] = g->table + ((size_t)count << BB_NGRAM_BITS) + (mixed >> (64 - BB_NGRAM_BITS));
        checks[count++] = (uint16_t)mixed;
    }
    return count;
}

static bool is_known(const bb_ngram *slot, uint16_t check) { return slot->count > 0 && slot->check == check; }

static int level_of(int count) {
    int level = 0;
    while (level < BB_NGRAM_COUNTS - 1 && count >> (level + 1)) level++;
    return level;
}

int bb_ngrams_guess(const bb_ngrams *g, const uint8_t *end, int64_t length, double *rate) {
    bb_ngram *slots[BB_NGRAM_ORDERS];
    uint16_t checks[BB_NGRAM_ORDERS];
    int byte = -1;
    *rate = 0;
    for (int o = find(g, end, length, slots, checks) - 1; o >= 0; o--) {
        if (!is_known(slots[o], checks[o])) continue;
        int n = level_of(slots[o]->count);
        double r = g->hits[o][n] / g->tries[o][n];
        if (r <= *rate) continue;
        *rate = r;
        byte = slots[o]->byte;
    }
    return byte;
}

void bb_ngrams_learn(bb_ngrams *g, const uint8_t *end, int64_t length) {
    bb_ngram *slots[BB_NGRAM_ORDERS];
    uint16_t checks[BB_NGRAM_ORDERS];
    int found = find(g, end, length, slots, checks);
    for (int o = 0; o < found; o++) {
        bb_ngram *s = slots[o];
        if (is_known(s, checks[o])) {
            bool hit = s->byte == *end;
            int n = level_of(s->count);
            g->hits[o][n] = decay * g->hits[o][n] + hit;
            g->tries[o][n] = decay * g->tries[o][n] + 1;
            s->count = (uint8_t)(hit ? s->count + (s->count < UINT8_MAX) : s->count / 2);
        } else {
            s->count = 0;
        }
        if (s->count == 0) *s = (bb_ngram){.check = checks[o], .byte = *end, .count = 1};
    }
}
