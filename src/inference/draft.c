/* SPDX-License-Identifier: MIT */
#include "inference/draft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Candidates compared at most, bytes compared at most, and the agreement from which on no better place is looked for. */
enum { CHAIN = 16, FARTHEST = 64, LONG = 32 };

/* Texts change, and the load of a machine: what an old guess or an old time counts beside a new one. */
static const double habit = 1 - 1.0 / 64, load = 1 - 1.0 / 16, burden = 1 - 1.0 / 2;
/* That a longer pass is dear is believed less with every byte on which it isn't tried: half as much after 2,800. */
static const double belief = 1 - 1.0 / 4096;
/* A pass is made longer when that promises at least this much more. */
static const double worth_it = 1.1;

static const int sizes[BB_DRAFT_SIZES] = {1, 2, 4, 8, 16};

static int bucket_of(int64_t agree) {
    static const int64_t limits[BB_DRAFT_BUCKETS - 1] = {8, 12, 16, 24, 48};
    int b = 0;
    while (b < BB_DRAFT_BUCKETS - 1 && agree >= limits[b]) b++;
    return b;
}

bb_status bb_draft_open(bb_draft *d, bb_error *err) {
    *d = (bb_draft){.newest = calloc(BB_DRAFT_HASHES, sizeof *d->newest),
                    .previous = calloc(BB_DRAFT_MEMORY, sizeof *d->previous),
                    .source = -1};
    for (int b = 0; b < BB_DRAFT_BUCKETS; b++) { /* one try, which the longer of them passed */
        d->tries[b] = 1;
        d->hits[b] = 0.4 + 0.1 * b;
    }
    d->excess[1] = 0.05; /* the first pass tells */
    if (d->newest && d->previous) return BB_OK;
    bb_draft_close(d);
    return bb_fail(err, BB_ERR_MEMORY, "out of memory for the n-grams of a text");
}

void bb_draft_close(bb_draft *d) {
    free(d->newest);
    free(d->previous);
    d->newest = d->previous = NULL;
}

/* Of the n-gram that ends before `p`. */
static uint32_t hash_before(const bb_context *c, int64_t p) {
    const uint8_t *text = bb_context_at(c, p - BB_DRAFT_NGRAM);
    uint64_t gram = 0;
    for (int i = 0; i < BB_DRAFT_NGRAM; i++) gram = gram << 8 | text[i];
    return (uint32_t)(gram * 0x9E3779B97F4A7C15u >> 49) & (BB_DRAFT_HASHES - 1);
}

/* How many bytes before `p` equal the text's last. */
static int64_t agreement(const bb_context *c, int64_t p) {
    const uint8_t *a = bb_context_at(c, p) - 1, *b = bb_context_at(c, c->end) - 1;
    int64_t most = p - c->base < FARTHEST ? p - c->base : FARTHEST, n = 0;
    while (n < most && a[-n] == b[-n]) n++;
    return n;
}

/* The longest agreement among the newest places of the last n-gram, if it is longer than the present one. */
static void find_source(bb_draft *d, const bb_context *c, uint32_t hash) {
    int64_t p = d->newest[hash];
    for (int i = 0; i < CHAIN && p >= c->base + BB_DRAFT_NGRAM && p < c->end && c->end - p < BB_DRAFT_MEMORY; i++) {
        int64_t n = agreement(c, p), before = d->previous[p & (BB_DRAFT_MEMORY - 1)];
        if (n >= BB_DRAFT_NGRAM && n > d->agree) {
            d->source = p;
            d->agree = n;
        }
        if (d->agree >= LONG || before >= p) return;
        p = before;
    }
}

static void index_place(bb_draft *d, int64_t p, uint32_t hash) {
    d->previous[p & (BB_DRAFT_MEMORY - 1)] = d->newest[hash];
    d->newest[hash] = p;
}

/* Finds what the text's end goes on from, then makes its end a place to be found. */
static void look_up(bb_draft *d, const bb_context *c) {
    if (c->end - c->base < BB_DRAFT_NGRAM) return;
    uint32_t hash = hash_before(c, c->end);
    if (d->agree < LONG) find_source(d, c, hash);
    index_place(d, c->end, hash);
}

void bb_draft_reset(bb_draft *d, const bb_context *c) {
    memset(d->newest, 0, BB_DRAFT_HASHES * sizeof *d->newest);
    d->source = -1;
    d->agree = 0;
    for (int64_t p = c->base + BB_DRAFT_NGRAM; p < c->end; p++) index_place(d, p, hash_before(c, p));
    look_up(d, c);
}

void bb_draft_push(bb_draft *d, const bb_context *c) {
    if (d->source >= c->base) {
        bool hit = *bb_context_at(c, d->source) == *bb_context_at(c, c->end - 1);
        int b = bucket_of(d->agree);
        d->tries[b] = habit * d->tries[b] + 1;
        d->hits[b] = habit * d->hits[b] + hit;
        d->source = hit ? d->source + 1 : -1;
        d->agree = hit ? d->agree + 1 : 0;
    } else {
        d->source = -1;
        d->agree = 0;
    }
    for (int i = 1; i < BB_DRAFT_SIZES; i++) d->excess[i] *= belief;
    look_up(d, c);
}

/* What a pass of a size takes above one over one byte. One that was never tried takes twice what half of its rows do: a text
 * whose guesses are poor never pays for the dear ones. */
static double excess_of(const bb_draft *d, int size) {
    double excess = d->excess[size];
    for (int i = size, factor = 1; i > 1 && !d->timed[i]; i--) {
        factor *= 2;
        excess = factor * d->excess[i - 1];
    }
    return excess;
}

/* Rows of the pass that gives most bytes in the time of a pass over one. */
static int best_rows(const bb_draft *d, int64_t most) {
    double expected = 1, all_right = 1, best = worth_it; /* bytes that a pass gives; and that in the time of a pass over one */
    int rows = 1;
    for (int i = 1; i < BB_DRAFT_SIZES && sizes[i] - 1 <= most; i++) {
        for (int j = sizes[i - 1]; j < sizes[i]; j++) {
            int b = bucket_of(d->agree + j - 1);
            all_right *= d->hits[b] / d->tries[b];
            expected += all_right;
        }
        double rate = expected / (1 + excess_of(d, i));
        if (rate <= best) continue;
        best = rate;
        rows = sizes[i];
    }
    return rows;
}

int bb_draft_guess(const bb_draft *d, const bb_context *c, int64_t most, bool always, uint8_t out[BB_DRAFT_MAX]) {
    if (d->source < c->base || most < 1) return 0;
    int n = 0;
    if (always)
        n = (int)(d->agree < most ? d->agree : most);
    else if (d->seconds > 0)
        n = best_rows(d, most) - 1;
    if (n > BB_DRAFT_MAX) n = BB_DRAFT_MAX;
    /* a text that repeats itself goes on into what is being guessed */
    for (int i = 0; i < n; i++)
        out[i] = d->source + i < c->end ? *bb_context_at(c, d->source + i) : out[d->source + i - c->end];
    return n;
}

void bb_draft_timed(bb_draft *d, int rows, double seconds) {
    if (rows == 1) {
        d->seconds = d->seconds > 0 ? load * d->seconds + (1 - load) * fmin(seconds, 4 * d->seconds) : seconds;
        return;
    }
    for (int i = 1; i < BB_DRAFT_SIZES; i++) {
        if (sizes[i] != rows || d->seconds <= 0) continue;
        double excess = fmin(fmax(seconds / d->seconds - 1, 0), rows - 1);
        d->excess[i] = burden * d->excess[i] + (1 - burden) * excess;
        d->timed[i] = true;
    }
}
