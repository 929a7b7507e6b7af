// SPDX-License-Identifier: MIT
#include "coding/mixer.h"

#include <stdlib.h>
#include <string.h>

#include "coding/counts.h"
#include "core/math.h"

/* Probabilities have 16 bits. Logits, ln(p / (1 - p)), have 8 fractional bits, weights 16. Shifts of negative numbers round down. */
enum {
    ONE = 1 << BB_MIXER_BITS,
    LIMIT = 11 * 256,       /* of logits: p = 1 / 60,000 */
    WEIGHT_LIMIT = 4 << 16, /* keeps sums of products within 32 bits */
    FINE = 4096,            /* probabilities near 0 and near 1 that have their own entries in the table of logits */
    NODES = 15,
    CONTEXTS = 7, /* the last 1 to 6 bytes; the word and the byte before it */
    FROM_MATCH = 2 * CONTEXTS,
    FROM_MODEL = FROM_MATCH + 2,
    BIAS = FROM_MODEL + 2,
    INPUTS = BIAS + 2, /* the last input is 0: vectors need an even number */
    SETS = 3,
    MIN_MATCH = 6,
    MATCH_LIMIT = 63,
    BINS = 33, /* of logits, in the refinement */
    PAIRS = 1 << 14,
    MIN_BYTES = 1 << 18, /* smallest table of contexts */
    PLACES = 128,        /* bytes of contexts for each entry of the match table */
    /* tuned by experiment on texts of 100 KB */
    LEARNING_RATE = 16,
    FINAL_RATE = 2,
    COUNT_LIMIT = 127,
    ADAPTATION = 6,
    FIRST_WEIGHT = 9000
};
/* Statistics of a bit in a context. */
typedef struct node {
    uint16_t p;      /* probability of a 1 */
    uint8_t n;       /* bits seen, saturated at COUNT_LIMIT */
    uint8_t history; /* a leading 1, then the latest bits, up to seven */
} node;

/* The nodes of four bits after a context: one cache line. */
typedef struct bucket {
    uint32_t check;    /* hash check of the context; 0: empty */
    node nodes[NODES]; /* a binary tree: the first bit, the second after 0, the second after 1, … */
} bucket;

struct bb_mixer {
    int16_t fine[FINE], coarse[ONE / 16]; /* logits of p, and of 16 p + 8 */
    uint16_t probabilities[2 * LIMIT + 1];
    uint16_t steps[COUNT_LIMIT + 1]; /* learning rate of nodes, by n: 1 / (n + 1.5) */
    size_t bytes;                    /* size of the context tables, a power of two */
    bucket *buckets;                 /* (bytes / sizeof(bucket)) */
    uint32_t *places;                /* (bytes / PLACES): position after the latest MIN_MATCH bytes with this hash */
    size_t bucket_mask, place_mask;
    /* of the next byte */
    const uint8_t *text;
    size_t position, match; /* match: position of the byte expected to repeat */
    int match_length;       /* equal bytes before it, at most MATCH_LIMIT; 0: no match */
    uint8_t last;           /* the previous byte */
    uint32_t word, hashes[CONTEXTS];
    bucket *current[CONTEXTS];
    uint32_t sums[512]; /* the model's counts, summed in a binary tree */
    int prefix;         /* a leading 1, then the bits of the byte so far */
    /* of the next bit */
    int32_t inputs[INPUTS], outputs[SETS];
    int32_t *weights[SETS], *final_weights;
    uint32_t predicted[SETS], mixed;
    int expected; /* bit that the match predicts; -1: none */
    uint16_t *refined[2];
    /* learned values */
    int32_t by_prefix[256][INPUTS], by_match[256][INPUTS], by_byte[256][INPUTS], finals[256][SETS];
    uint16_t by_history[CONTEXTS][256], by_length[MATCH_LIMIT + 1]; /* probabilities */
    uint16_t refined_by_prefix[256][BINS], refined_by_pair[PAIRS][BINS];
};

/* ---- the logistic function ----------------------------------------------------------------------------------------------- */

static void fill_tables(bb_mixer *m) {
    uint64_t e = (uint64_t)1 << 30; /* exp(-x), 30 bits */
    for (int x = 0; x <= LIMIT; x++) {
        uint64_t p = ((uint64_t)1 << 46) / (((uint64_t)1 << 30) + e);
        m->probabilities[LIMIT + x] = (uint16_t)bb_min((int64_t)p, ONE - 1);
        m->probabilities[LIMIT - x] = (uint16_t)(ONE - m->probabilities[LIMIT + x]);
        e = e * 4278222805u >> 32; /* exp(-1 / 256), 32 bits */
    }
    for (int p = 0, x = -LIMIT; p < ONE; p++) {
        while (x < LIMIT && m->probabilities[LIMIT + x] < p) x++;
        if (p < FINE) m->fine[p] = (int16_t)x;
        if (p % 16 == 8) m->coarse[p / 16] = (int16_t)x;
    }
    for (int n = 0; n <= COUNT_LIMIT; n++) m->steps[n] = (uint16_t)(2 * ONE / (2 * n + 3));
}

static int32_t logit(const bb_mixer *m, uint32_t p) {
    if (p < FINE) return m->fine[p];
    if (p > ONE - FINE) return -m->fine[ONE - p];
    return m->coarse[p / 16];
}

static int32_t clamp_logit(int32_t x) { return (int32_t)bb_clamp(x, -LIMIT, LIMIT); }

/* Moves a probability towards a bit, by 2^-ADAPTATION of the distance. */
static void update_probability(uint16_t *p, int bit) {
    *p = (uint16_t)(bit ? *p + ((ONE - 1 - *p) >> ADAPTATION) : *p - (*p >> ADAPTATION));
}

/* ---- open and clear ------------------------------------------------------------------------------------------------------- */

bb_status bb_mixer_open(bb_mixer **out, bb_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) return bb_fail(err, BB_ERR_MEMORY, "out of memory for contexts");
    fill_tables(*out);
    return BB_OK;
}

void bb_mixer_close(bb_mixer *m) {
    if (!m) return;
    free(m->buckets);
    free(m->places);
    free(m);
}

/* Clears the context tables for a text of `size` bytes, resizing them if necessary. */
static bb_status clear_contexts(bb_mixer *m, size_t size, int bits, bb_error *err) {
    size_t bytes = MIN_BYTES;
    while (bytes >> bits == 0 && bytes / BB_MIXER_BYTES_A_BYTE < size) bytes *= 2;
    if (bytes != m->bytes) {
        free(m->buckets);
        free(m->places);
        m->bytes = 0;
        m->buckets = aligned_alloc(sizeof(bucket), bytes);
        m->places = malloc(bytes / PLACES * sizeof *m->places);
        if (!m->buckets || !m->places) return bb_fail(err, BB_ERR_MEMORY, "out of memory for contexts of %zu bytes", bytes);
        m->bytes = bytes;
    }
    m->bucket_mask = bytes / sizeof(bucket) - 1;
    m->place_mask = bytes / PLACES - 1;
    memset(m->buckets, 0, bytes);
    memset(m->places, 0, bytes / PLACES * sizeof *m->places);
    return BB_OK;
}

/* Initially the model's prediction has a large weight, contexts a small one. sets: (256). */
static void clear_weights(int32_t (*sets)[INPUTS]) {
    memset(sets, 0, 256 * sizeof *sets);
    for (int i = 0; i < 256; i++) {
        for (int k = 0; k < FROM_MATCH; k++) sets[i][k] = FIRST_WEIGHT;
        sets[i][FROM_MODEL] = 3 * ONE / 4;
    }
}

/* The estimate adds half a bit of each value to the bits seen. */
static uint16_t guess_of_history(int history) {
    int bits = 0, ones = 0;
    for (; history > 1; history >>= 1) {
        ones += history & 1;
        bits++;
    }
    return (uint16_t)((2 * ones + 1) * (ONE / 2) / (bits + 1));
}

bb_status bb_mixer_clear(bb_mixer *m, size_t size, int bits, bb_error *err) {
    BB_TRY(clear_contexts(m, size, bits, err));
    clear_weights(m->by_prefix);
    clear_weights(m->by_match);
    clear_weights(m->by_byte);
    for (int i = 0; i < 256; i++) {
        for (int k = 0; k < SETS; k++) m->finals[i][k] = ONE / SETS;
        for (int k = 0; k < CONTEXTS; k++) m->by_history[k][i] = guess_of_history(i);
    }
    for (int i = 0; i < BINS; i++) m->refined_by_prefix[0][i] = m->probabilities[i * 2 * LIMIT / (BINS - 1)];
    for (int i = 1; i < 256; i++) memcpy(m->refined_by_prefix[i], m->refined_by_prefix[0], sizeof m->refined_by_prefix[0]);
    for (int i = 0; i < PAIRS; i++) memcpy(m->refined_by_pair[i], m->refined_by_prefix[0], sizeof m->refined_by_pair[0]);
    for (int i = 0; i <= MATCH_LIMIT; i++) m->by_length[i] = (uint16_t)(ONE - ONE / (2 * i + 4));
    m->match = 0;
    m->match_length = 0;
    m->word = 0;
    return BB_OK;
}

/* ---- contexts ------------------------------------------------------------------------------------------------------------ */

static uint32_t hash_of(uint32_t a, uint32_t b) {
    uint32_t h = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u) * 0x85EBCA6Bu;
    h ^= h >> 15;
    h *= 0xC2B2AE35u;
    return h ^ h >> 13;
}

/* Returns the bucket of a context. If it has none, it replaces the less used one of two candidates. */
static bucket *find(const bb_mixer *m, uint32_t hash) {
    size_t at = hash & m->bucket_mask;
    bucket *a = &m->buckets[at], *b = &m->buckets[at ^ 1];
    uint32_t check = (hash >> 8 ^ hash * 0x2C1B3C6Du) | 1;
    if (a->check == check) return a;
    if (b->check == check) return b;
    if (a->nodes[0].n > b->nodes[0].n) a = b;
    a->check = check;
    for (int i = 0; i < NODES; i++) a->nodes[i] = (node){.p = ONE / 2, .history = 1};
    return a;
}

static bool in_word(uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128; }

static int length_of_match(const uint8_t *x, size_t a, size_t b) {
    int length = 0;
    while (length < MATCH_LIMIT && (size_t)length < a && x[a - 1 - (size_t)length] == x[b - 1 - (size_t)length]) length++;
    return length;
}

/* Extends the match, or looks for a new one. */
static void find_match(bb_mixer *m) {
    const uint8_t *x = m->text;
    size_t n = m->position;
    bool extends = m->match_length > 0 && x[m->match] == m->last;
    m->match_length = extends ? (int)bb_min(m->match_length + 1, MATCH_LIMIT) : 0;
    m->match += extends;
    if (n < MIN_MATCH) return;
    uint32_t hash = 0;
    for (size_t i = 1; i <= MIN_MATCH; i++) hash = hash_of(hash, x[n - i]);
    uint32_t *place = &m->places[hash & m->place_mask];
    if (!extends) {
        m->match = *place;
        m->match_length = length_of_match(x, m->match, n);
        if (m->match_length < MIN_MATCH) m->match_length = 0;
    }
    *place = (uint32_t)n;
}

static void find_buckets(bb_mixer *m) {
    for (int i = 0; i < CONTEXTS; i++) m->current[i] = find(m, hash_of(m->hashes[i], (uint32_t)m->prefix));
}

void bb_mixer_begin_byte(bb_mixer *m, const uint8_t *text, size_t position, const uint32_t *counts) {
    m->text = text;
    m->position = position;
    m->last = position ? text[position - 1] : 0;
    m->prefix = 1;
    memcpy(m->sums + 256, counts, 256 * sizeof *counts);
    for (int i = 255; i > 0; i--) m->sums[i] = m->sums[2 * i] + m->sums[2 * i + 1];
    if (position > 0) find_match(m);
    m->word = in_word(m->last) ? hash_of(m->word, m->last | 32) : 0;
    uint32_t hash = 0;
    for (size_t i = 1; i < CONTEXTS; i++) m->hashes[i - 1] = hash = hash_of(hash, i <= position ? text[position - i] + 1u : 0);
    m->hashes[CONTEXTS - 1] = hash_of(m->word, m->last + 512u);
    find_buckets(m);
}

/* ---- predicting ----------------------------------------------------------------------------------------------------------- */

static int bits_of(int prefix) { return 31 - __builtin_clz((unsigned)prefix); }

/* Returns the index of the next bit's node within its half of the byte. */
static int node_of(int prefix) {
    int bits = bits_of(prefix);
    return (bits < 4 ? prefix : 1 << (bits - 4) | (prefix & ((1 << (bits - 4)) - 1))) - 1;
}

static int32_t dot(const int32_t *a, const int32_t *b, int count) {
    int32_t sum = 0;
    for (int i = 0; i < count; i++) sum += a[i] * b[i] >> 8;
    return sum >> 8;
}

static void predict_match(bb_mixer *m) {
    m->inputs[FROM_MATCH] = m->inputs[FROM_MATCH + 1] = 0;
    m->expected = -1;
    if (m->match_length == 0) return;
    int bits = bits_of(m->prefix), byte = m->text[m->match] | 256;
    if (byte >> (8 - bits) != m->prefix) {
        m->match_length = 0;
        return;
    }
    m->expected = byte >> (7 - bits) & 1;
    int32_t x = logit(m, m->by_length[m->match_length]), length = 16 * m->match_length;
    m->inputs[FROM_MATCH] = m->expected ? x : -x;
    m->inputs[FROM_MATCH + 1] = m->expected ? length : -length;
}

/* Corrects a prediction by the outcomes of similar ones, interpolated between the two nearest bins. */
static uint32_t refine(bb_mixer *m, uint16_t *bins, int32_t x, int which) {
    const int32_t width = 2 * LIMIT / (BINS - 1);
    int low = (int)bb_min((x + LIMIT) / width, BINS - 2);
    int32_t part = x + LIMIT - low * width;
    m->refined[which] = bins + low + (2 * part > width);
    return (bins[low] * (uint32_t)(width - part) + bins[low + 1] * (uint32_t)part) / (uint32_t)width;
}

uint32_t bb_mixer_predict(bb_mixer *m) {
    int prefix = m->prefix, at = node_of(prefix);
    for (int i = 0; i < CONTEXTS; i++) {
        const node *n = &m->current[i]->nodes[at];
        m->inputs[2 * i] = logit(m, n->p);
        m->inputs[2 * i + 1] = logit(m, m->by_history[i][n->history]);
    }
    predict_match(m);
    uint64_t ones = (uint64_t)m->sums[2 * prefix + 1] << BB_MIXER_BITS;
    int32_t of_model = (int32_t)bb_clamp((int64_t)(ones / m->sums[prefix]), 1, ONE - 1);
    int32_t model = logit(m, (uint32_t)of_model);
    m->inputs[FROM_MODEL] = model;
    m->inputs[FROM_MODEL + 1] = (of_model - ONE / 2) >> 6;
    m->inputs[BIAS] = 256;
    int sure = (int)bb_min((model < 0 ? -model : model) / 176, 15);
    int match = m->expected < 0 ? 0 : 1 + (int)bb_min(m->match_length / 4, 14);
    m->weights[0] = m->by_prefix[prefix];
    m->weights[1] = m->by_match[16 * match + sure];
    m->weights[2] = m->by_byte[m->last];
    for (int k = 0; k < SETS; k++) {
        m->outputs[k] = clamp_logit(dot(m->inputs, m->weights[k], INPUTS));
        m->predicted[k] = m->probabilities[LIMIT + m->outputs[k]];
    }
    m->final_weights = m->finals[prefix];
    int32_t x = clamp_logit(dot(m->outputs, m->final_weights, SETS));
    m->mixed = m->probabilities[LIMIT + x];
    uint32_t pair = hash_of(m->last, (uint32_t)prefix) & (PAIRS - 1);
    uint32_t p = 2 * m->mixed + refine(m, m->refined_by_prefix[prefix], x, 0) + refine(m, m->refined_by_pair[pair], x, 1);
    return (uint32_t)bb_clamp((int64_t)(p / 4), 1, ONE - 1);
}

/* ---- learning ------------------------------------------------------------------------------------------------------------- */

static void update_weights(int32_t *weights, const int32_t *inputs, int count, int32_t error, int rate) {
    for (int i = 0; i < count; i++) {
        int32_t w = weights[i] + (((inputs[i] * error >> 10) * rate + 512) >> 10);
        w = w < WEIGHT_LIMIT ? w : WEIGHT_LIMIT;
        weights[i] = w > -WEIGHT_LIMIT ? w : -WEIGHT_LIMIT;
    }
}

static void update_node(node *n, const uint16_t *steps, int bit) {
    int32_t error = (bit ? ONE - 1 : 0) - n->p;
    n->p = (uint16_t)(n->p + error * (steps[n->n] >> 1) / (ONE / 2));
    if (n->n < COUNT_LIMIT) n->n++;
    int history = n->history << 1 | bit;
    n->history = (uint8_t)(history < 256 ? history : 128 | (history & 127));
}

void bb_mixer_update(bb_mixer *m, int bit) {
    int at = node_of(m->prefix);
    int32_t target = bit << BB_MIXER_BITS;
    for (int k = 0; k < SETS; k++)
        update_weights(m->weights[k], m->inputs, INPUTS, target - (int32_t)m->predicted[k], LEARNING_RATE);
    update_weights(m->final_weights, m->outputs, SETS, target - (int32_t)m->mixed, FINAL_RATE);
    for (int i = 0; i < CONTEXTS; i++) {
        node *n = &m->current[i]->nodes[at];
        update_probability(&m->by_history[i][n->history], bit);
        update_node(n, m->steps, bit);
    }
    if (m->expected >= 0) update_probability(&m->by_length[m->match_length], m->expected == bit);
    update_probability(m->refined[0], bit);
    update_probability(m->refined[1], bit);
    m->prefix = m->prefix << 1 | bit;
    if (m->prefix >= 16 && m->prefix < 32) find_buckets(m);
}
