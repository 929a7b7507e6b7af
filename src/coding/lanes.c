// SPDX-License-Identifier: MIT
/* Encoding knows the bytes that come and reads many bytes of a lane in a pass; decoding reads one. Both slide their windows at
 * the same bytes, and the logits of a row do not depend on the other rows, so both get the same counts. */
#include "coding/lanes.h"

#include <stdlib.h>
#include <string.h>

#include "coding/counts.h"
#include "coding/mixer.h"
#include "coding/range_coder.h"
#include "core/math.h"
#include "inference/context.h"

typedef struct lane {
    bb_context context;
    bb_range_encoder encoder;
    bb_range_decoder decoder;
    const uint8_t *bytes; /* the text to encode, or the text decoded so far */
    uint8_t *out;         /* where decoded bytes go; NULL when encoding */
    int64_t size, coded;  /* bytes in all; bytes coded so far */
    bool reading, mixed;
    bb_mixer *mixer; /* NULL until one is needed */
} lane;

struct bb_lanes {
    bb_model *model;
    bb_lanes_options options;
    lane *lanes;             /* (lane_capacity) */
    int lane_capacity, open; /* allocated lanes, and those with an open context */
    int count;               /* lanes in use */
    bb_cached_rows pieces[BB_MAX_LANES];
    lane *members[BB_MAX_LANES];
    int rows;      /* encoding: bytes of a lane read in a pass */
    float *logits; /* encoding: (count, rows, 256) */
    uint8_t *coded;
    size_t coded_capacity;
};

enum {
    LANE_BYTES = 2048, /* shorter lanes cost more than they are worth: each begins without a context */
    CONTEXT_BITS = 27  /* log2 of the bytes of contexts for all lanes of a block */
};

/* Returns the maximum number of rows of a pass: a piece of a window that is read again, and the rows to code. */
static int64_t pass_rows(int lanes) { return BB_CONTEXT_PIECE + bb_max(BB_CONTEXT_PIECE, (int64_t)BB_CONTEXT_ROWS * lanes); }

/* Allocates memory for `lanes` lanes. */
static bb_status reserve_lanes(bb_lanes *l, int lanes, bb_error *err) {
    if (lanes <= l->lane_capacity) return BB_OK;
    lane *grown = realloc(l->lanes, (size_t)lanes * sizeof *grown);
    if (!grown) return bb_fail(err, BB_ERR_MEMORY, "out of memory for %d lanes", lanes);
    memset(grown + l->lane_capacity, 0, (size_t)(lanes - l->lane_capacity) * sizeof *grown);
    l->lanes = grown;
    l->lane_capacity = lanes;
    BB_DEVICE_SCOPE(l->model->device);
    return bb_model_reserve_rows(l->model, pass_rows(lanes), l->options.window, err);
}

bb_status bb_lanes_open(bb_model *model, const bb_lanes_options *o, bb_lanes **out, bb_error *err) {
    bb_lanes *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return bb_fail(err, BB_ERR_MEMORY, "out of memory for lanes");
    l->model = model;
    l->options = *o;
    bb_status status = reserve_lanes(l, o->lanes, err);
    if (status == BB_OK)
        *out = l;
    else
        bb_lanes_close(l);
    return status;
}

void bb_lanes_close(bb_lanes *l) {
    if (!l) return;
    for (int i = 0; i < l->open; i++) {
        bb_context_close(&l->lanes[i].context);
        bb_range_encoder_free(&l->lanes[i].encoder);
        bb_mixer_close(l->lanes[i].mixer);
    }
    free(l->lanes);
    free(l->logits);
    free(l->coded);
    free(l);
}

/* Clears the contexts of one of `count` lanes. */
static bb_status begin_mixing(lane *a, int count, bb_error *err) {
    int bits = CONTEXT_BITS;
    while (count > 1 << (CONTEXT_BITS - bits)) bits--;
    if (!a->mixer) BB_TRY(bb_mixer_open(&a->mixer, err));
    return bb_mixer_clear(a->mixer, (size_t)a->size, bits, err);
}

size_t bb_lanes_context_bytes(size_t size) {
    return (size_t)bb_min((int64_t)size * BB_MIXER_BYTES_A_BYTE, (int64_t)1 << CONTEXT_BITS);
}

/* Sets up the next `count` lanes for a block of `size` bytes: opens contexts as needed and starts each with a newline. */
static bb_status add_lanes(bb_lanes *l, int count, size_t size, bool mixed, bb_error *err) {
    if (l->count + count > BB_MAX_LANES) return bb_fail(err, BB_ERR_INTERNAL, "%d lanes at once", l->count + count);
    BB_TRY(reserve_lanes(l, l->count + count, err));
    for (; l->open < l->count + count; l->open++)
        BB_TRY(bb_context_open(l->model, l->options.window, l->options.kv_cache, &l->lanes[l->open].context, err));
    for (int i = 0; i < count; i++) {
        lane *a = &l->lanes[l->count + i];
        size_t first = size * (size_t)i / (size_t)count, end = size * (size_t)(i + 1) / (size_t)count;
        a->size = (int64_t)(end - first);
        a->coded = 0;
        a->reading = false;
        a->mixed = mixed;
        bb_context_clear(&a->context);
        bb_context_append(&a->context, (const uint8_t *)"\n", 1);
        if (mixed) BB_TRY(begin_mixing(a, count, err));
    }
    l->count += count;
    return BB_OK;
}

/* Codes the next byte with the counts of the model. */
static void code_byte(lane *a, const uint32_t *counts) {
    uint32_t low = 0;
    int symbol = 0;
    if (a->out) {
        uint32_t target = bb_range_decode_target(&a->decoder);
        while (target - low >= counts[symbol]) low += counts[symbol++];
        bb_range_decode_consume(&a->decoder, low, counts[symbol]);
        a->out[a->coded] = (uint8_t)symbol;
    } else {
        symbol = a->bytes[a->coded];
        for (int i = 0; i < symbol; i++) low += counts[i];
        bb_range_encode(&a->encoder, low, counts[symbol]);
    }
}

/* The same, bit by bit, mixed with the contexts. */
static void code_byte_mixed(lane *a, const uint32_t *counts) {
    int byte = a->out ? 0 : a->bytes[a->coded];
    bb_mixer_begin_byte(a->mixer, a->out ? a->out : a->bytes, (size_t)a->coded, counts);
    for (int i = 7; i >= 0; i--) {
        uint32_t ones = bb_mixer_predict(a->mixer) << (BB_COUNTS_BITS - BB_MIXER_BITS);
        int bit = a->out ? bb_range_decode_target(&a->decoder) < ones : byte >> i & 1;
        uint32_t low = bit ? 0 : ones, count = bit ? ones : BB_COUNTS_TOTAL - ones;
        if (a->out)
            bb_range_decode_consume(&a->decoder, low, count);
        else
            bb_range_encode(&a->encoder, low, count);
        bb_mixer_update(a->mixer, bit);
        byte |= bit << i;
    }
    if (a->out) a->out[a->coded] = (uint8_t)byte;
}

/* Codes the bytes that the rows of the latest read predict. */
static void code_rows(lane *a, const float *logits, int rows) {
    uint32_t counts[BB_COUNTS_SYMBOLS];
    for (int row = 0; row < rows && a->coded < a->size; row++) {
        bb_counts_from_logits(logits + (size_t)row * BB_COUNTS_SYMBOLS, counts);
        if (a->mixed)
            code_byte_mixed(a, counts);
        else
            code_byte(a, counts);
        a->coded++;
    }
}

/* Chooses the bytes to read next, after those coded so far. A lane starts with a newline in its context; a full window slides
 * before it reads one byte. */
static void begin_read(lane *a, int limit) {
    bb_context *c = &a->context;
    int64_t read = c->end - 1, rows = 1; /* bytes of the lane that the context has read */
    if (a->coded > 0) {
        int64_t known = a->out ? a->coded - read : a->size - 1 - read;
        rows = bb_clamp(bb_min(known, bb_context_free(c)), 1, limit);
        bb_context_append(c, (a->out ? a->out : a->bytes) + read, rows);
    }
    bb_context_begin(c, (int)rows);
    a->reading = true;
}

static int64_t bytes_done(const bb_lanes *l) {
    int64_t done = 0;
    for (int i = 0; i < l->count; i++) done += l->lanes[i].coded;
    return done;
}

/* Runs one pass over all unfinished lanes. Lanes that read a long piece of their window again take turns. */
static bb_status step(bb_lanes *l, bool *more, bb_error *err) {
    int n = 0;
    int64_t read = 0;
    for (int i = 0; i < l->count; i++) {
        lane *a = &l->lanes[i];
        if (a->coded == a->size) continue;
        if (!a->reading) begin_read(a, a->out ? 1 : l->rows);
        if (!bb_context_next(&a->context, &l->pieces[n])) return bb_fail(err, BB_ERR_INTERNAL, "a lane has nothing to read");
        if (!a->out) l->pieces[n].logits = l->logits + (size_t)(i * l->rows) * BB_COUNTS_SYMBOLS;
        if (l->pieces[n].rows > BB_CONTEXT_ROWS) {
            if (read > 0 && read + l->pieces[n].rows > BB_CONTEXT_PIECE) continue;
            read += l->pieces[n].rows;
        }
        l->members[n++] = a;
    }
    *more = n > 0;
    if (n == 0) return BB_OK;
    if (l->options.stop && *l->options.stop) return bb_fail(err, BB_ERR_INTERRUPTED, "stopped");
    BB_TRY(bb_model_forward_parts(l->model, l->pieces, n, err));
    for (int i = 0; i < n; i++) {
        lane *a = l->members[i];
        bool last = a->context.first + a->context.cache.length == a->context.end;
        BB_TRY(bb_context_advance(&a->context, &l->pieces[i], err));
        if (!last) continue;
        a->reading = false;
        code_rows(a, l->pieces[i].logits, a->context.rows);
    }
    if (l->options.on_bytes) l->options.on_bytes(l->options.user, bytes_done(l));
    return BB_OK;
}

static void put_number(uint8_t *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_number(const uint8_t *from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << 8 * i;
    return value;
}

static size_t head_bytes(int lanes) { return 2 + 4 * (size_t)(lanes - 1); }

static size_t coded_size(const bb_lanes *l) {
    size_t size = head_bytes(l->count);
    for (int i = 0; i < l->count; i++) size += l->lanes[i].encoder.size;
    return size;
}

/* Writes the coded lanes one after the other, unless they exceed the limit. */
static bb_status collect(bb_lanes *l, size_t limit, bb_bytes *coded, bb_error *err) {
    for (int i = 0; i < l->count; i++) {
        bb_range_encoder_end(&l->lanes[i].encoder);
        if (l->lanes[i].encoder.no_memory) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a coded lane");
    }
    size_t size = coded_size(l), at = head_bytes(l->count);
    if (size > limit) return BB_OK;
    if (size > l->coded_capacity) {
        free(l->coded);
        l->coded_capacity = 0;
        l->coded = malloc(size);
        if (!l->coded) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a coded block of %zu bytes", size);
        l->coded_capacity = size;
    }
    put_number(l->coded, (uint64_t)l->count, 2);
    for (int i = 0; i < l->count; i++) {
        const bb_range_encoder *e = &l->lanes[i].encoder;
        if (i + 1 < l->count) put_number(l->coded + 2 + 4 * (size_t)i, e->size, 4);
        if (e->size) memcpy(l->coded + at, e->bytes, e->size);
        at += e->size;
    }
    *coded = (bb_bytes){l->coded, size};
    return BB_OK;
}

/* Returns whether the block will clearly not get smaller, judged after a few thousand bytes. */
static bool hopeless(const bb_lanes *l) {
    size_t done = (size_t)bytes_done(l);
    return coded_size(l) > done + done / 32 + 4096;
}

bb_status bb_lanes_encode(bb_lanes *l, const uint8_t *bytes, size_t size, size_t limit, bb_bytes *coded, bb_error *err) {
    int count = (int)bb_clamp((int64_t)(size / LANE_BYTES), 1, l->options.lanes);
    bool more = true;
    *coded = (bb_bytes){NULL, 0};
    l->count = 0;
    BB_TRY(add_lanes(l, count, size, l->options.mix, err));
    l->rows = (int)bb_max(BB_CONTEXT_ROWS, BB_CONTEXT_PIECE / count);
    free(l->logits);
    l->logits = malloc((size_t)(count * l->rows) * BB_COUNTS_SYMBOLS * sizeof *l->logits);
    if (!l->logits) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the logits of %d lanes", count);
    for (int i = 0; i < count; i++) {
        l->lanes[i].bytes = bytes + size * (size_t)i / (size_t)count;
        l->lanes[i].out = NULL;
        bb_range_encoder_begin(&l->lanes[i].encoder);
    }
    while (more) {
        BB_TRY(step(l, &more, err));
        if (hopeless(l)) return BB_OK;
    }
    return collect(l, limit, coded, err);
}

int bb_lanes_count(bb_bytes coded, size_t size) {
    int count = coded.size < 2 ? 0 : (int)get_number(coded.data, 2);
    return count <= BB_MAX_LANES && (size_t)count <= size && head_bytes(count) <= coded.size ? count : 0;
}

/* Parses the lanes of a coded block. */
static bb_status find_lanes(bb_lanes *l, bb_lanes_block *b, bb_error *err) {
    b->lanes = bb_lanes_count(b->coded, b->size);
    b->first = l->count;
    if (b->lanes < 1)
        return bb_fail(err, BB_ERR_FORMAT, "a block of %zu bytes does not begin with a valid number of lanes", b->coded.size);
    BB_TRY(add_lanes(l, b->lanes, b->size, b->mixed, err));
    size_t at = head_bytes(b->lanes);
    for (int i = 0; i < b->lanes; i++) {
        lane *a = &l->lanes[b->first + i];
        size_t left = b->coded.size - at,
               bytes = i + 1 < b->lanes ? (size_t)get_number(b->coded.data + 2 + 4 * (size_t)i, 4) : left;
        if (bytes > left) {
            l->count = b->first;
            return bb_fail(err, BB_ERR_FORMAT, "lane %d has %zu bytes, but %zu are left in its block", i + 1, bytes, left);
        }
        bb_range_decoder_begin(&a->decoder, b->coded.data + at, bytes);
        a->out = b->bytes + b->size * (size_t)i / (size_t)b->lanes;
        at += bytes;
    }
    return BB_OK;
}

/* Checks that all bytes of a decoded block were used. */
static void check_lanes(const bb_lanes *l, bb_lanes_block *b) {
    for (int i = 0; i < b->lanes && b->status == BB_OK; i++) {
        const bb_range_decoder *d = &l->lanes[b->first + i].decoder;
        if (d->at < d->end)
            b->status = bb_fail(&b->error, BB_ERR_FORMAT, "lane %d has %zu extra bytes", i + 1, (size_t)(d->end - d->at));
    }
}

bb_status bb_lanes_decode(bb_lanes *l, bb_lanes_block *blocks, int count, bb_error *err) {
    bool more = true;
    l->count = 0;
    for (int i = 0; i < count; i++) {
        bb_lanes_block *b = &blocks[i];
        b->status = find_lanes(l, b, &b->error);
        if (b->status == BB_OK || b->status == BB_ERR_FORMAT) continue;
        *err = b->error;
        return b->status;
    }
    while (more) BB_TRY(step(l, &more, err));
    for (int i = 0; i < count; i++) check_lanes(l, &blocks[i]);
    return BB_OK;
}
