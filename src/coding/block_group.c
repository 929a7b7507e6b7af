// SPDX-License-Identifier: MIT
#include "coding/block_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "coding/lanes.h"
#include "core/math.h"
#include "model/model.h"

/* Limits of the decoded bytes and of the memory for contexts in one group, if the caller does not set the number of blocks. */
enum { GROUP_BYTES = 1 << 26, CONTEXT_BYTES = 1 << 28 };

typedef struct member {
    bb_stream_block head;
    uint64_t at;
    uint8_t *coded, *bytes; /* (coded_capacity), (bytes_capacity) */
    size_t coded_capacity, bytes_capacity;
    bb_status status; /* result of decoding its lanes */
    bb_error error;
} member;

struct bb_block_group {
    bb_model *model;
    bb_stream_header header;
    bb_block_group_options options;
    bb_lanes *lanes;                  /* NULL until a block needs the model */
    member members[BB_MAX_LANES + 1]; /* (capacity + 1) */
    int capacity, count;
};

static void hex(const uint8_t *bytes, char out[2 * BB_MODEL_HASH_BYTES + 1]) {
    for (int i = 0; i < BB_MODEL_HASH_BYTES; i++) (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bb_status check_model(bb_model *model, const bb_stream_header *h, bb_error *err) {
    char theirs[2 * BB_MODEL_HASH_BYTES + 1], ours[2 * BB_MODEL_HASH_BYTES + 1];
    uint8_t hash[BB_MODEL_HASH_BYTES];
    bb_arithmetic arithmetic;
    BB_TRY(bb_stream_arithmetic(model, &arithmetic, err));
    BB_TRY(bb_model_hash(model, hash, err));
    hex(h->model, theirs);
    hex(hash, ours);
    if (strcmp(theirs, ours) != 0)
        return bb_fail(
            err, BB_ERR_FORMAT,
            "byte 19: the stream was made with another model: %s (%llu parameters); this one is %s (%llu parameters)", theirs,
            (unsigned long long)h->parameters, ours, (unsigned long long)model->table.total);
    if (h->arithmetic != arithmetic)
        return bb_fail(err, BB_ERR_FORMAT, "byte 5: the stream was made on device %s and can be decoded only there; this is %s",
                       bb_arithmetic_name(h->arithmetic), bb_arithmetic_name(arithmetic));
    return BB_OK;
}

bb_status bb_block_group_open(bb_model *model, const bb_stream_header *header, const bb_block_group_options *o,
                              bb_block_group **out, bb_error *err) {
    *out = NULL;
    BB_TRY(check_model(model, header, err));
    bb_block_group *g = calloc(1, sizeof *g);
    if (!g) return bb_fail(err, BB_ERR_MEMORY, "out of memory for decompression");
    g->model = model;
    g->header = *header;
    g->options = *o;
    g->capacity = (int)bb_clamp(o->blocks ? o->blocks : GROUP_BYTES >> header->block_bits, 1, BB_MAX_LANES);
    *out = g;
    return BB_OK;
}

void bb_block_group_close(bb_block_group *g) {
    if (!g) return;
    bb_lanes_close(g->lanes);
    for (int i = 0; i <= g->capacity; i++) {
        free(g->members[i].coded);
        free(g->members[i].bytes);
    }
    free(g);
}

static bb_status reserve(uint8_t **bytes, size_t *capacity, size_t size, bb_error *err) {
    if (size <= *capacity) return BB_OK;
    free(*bytes);
    *bytes = malloc(size);
    *capacity = *bytes ? size : 0;
    return *bytes ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for a block of %zu bytes", size);
}

bb_status bb_block_group_prepare(bb_block_group *g, const bb_stream_block *head, uint64_t at, uint8_t **coded, bb_error *err) {
    member *m = &g->members[g->count];
    m->head = *head;
    m->at = at;
    m->status = BB_OK;
    BB_TRY(reserve(&m->coded, &m->coded_capacity, head->coded, err));
    if (head->kind != BB_BLOCK_STORED) BB_TRY(reserve(&m->bytes, &m->bytes_capacity, head->size, err));
    *coded = m->coded;
    return BB_OK;
}

void bb_block_group_add(bb_block_group *g) { g->count++; }

static bool has_lanes(const member *m) { return m->head.kind == BB_BLOCK_MODEL || m->head.kind == BB_BLOCK_MIXED; }

static int lanes_of(const member *m) {
    return has_lanes(m) ? bb_lanes_count((bb_bytes){m->coded, m->head.coded}, m->head.size) : 0;
}

bool bb_block_group_full(const bb_block_group *g) {
    int lanes = 0;
    size_t contexts = 0;
    for (int i = 0; i < g->count; i++) {
        const member *m = &g->members[i];
        lanes += lanes_of(m);
        if (m->head.kind == BB_BLOCK_MIXED) contexts += bb_lanes_context_bytes(m->head.size);
    }
    return g->count == g->capacity || lanes >= BB_MAX_LANES || (!g->options.blocks && contexts >= CONTEXT_BYTES);
}

static bb_status decode_zstd(member *m, bb_error *err) {
    size_t size = ZSTD_decompress(m->bytes, m->head.size, m->coded, m->head.coded);
    if (size == m->head.size) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "a zstd block is damaged: %s",
                   ZSTD_isError(size) ? ZSTD_getErrorName(size) : "it is too short");
}

/* Decodes the next blocks of the model, from *first on, that fit into shared passes, and advances *first past them. */
static bb_status decode_some(bb_block_group *g, int *first, bb_error *err) {
    bb_lanes_block *blocks = calloc(BB_MAX_LANES, sizeof *blocks);
    member *members[BB_MAX_LANES];
    int count = 0, lanes = 0, i = *first;
    if (!blocks) return bb_fail(err, BB_ERR_MEMORY, "out of memory for decompression");
    for (; i < g->count; i++) {
        member *m = &g->members[i];
        if (!has_lanes(m)) continue;
        if (count > 0 && lanes + lanes_of(m) > BB_MAX_LANES) break;
        lanes += lanes_of(m);
        members[count] = m;
        blocks[count++] = (bb_lanes_block){.coded = {m->coded, m->head.coded},
                                           .bytes = m->bytes,
                                           .size = m->head.size,
                                           .mixed = m->head.kind == BB_BLOCK_MIXED};
    }
    *first = i;
    const bb_lanes_options options = {.lanes = 1,
                                      .window = g->header.window,
                                      .kv_cache = g->header.kv_cache,
                                      .stop = g->options.stop,
                                      .on_bytes = g->options.on_bytes,
                                      .user = g->options.user};
    bb_status status = BB_OK;
    if (count && !g->lanes) status = bb_lanes_open(g->model, &options, &g->lanes, err);
    if (count && status == BB_OK) status = bb_lanes_decode(g->lanes, blocks, count, err);
    for (int k = 0; k < count && status == BB_OK; k++) {
        members[k]->status = blocks[k].status;
        members[k]->error = blocks[k].error;
    }
    free(blocks);
    return status;
}

/* Verifies a block and passes it to on_block. */
static bb_status emit_block(const bb_block_group *g, member *m, bb_error *err) {
    const bb_stream_block *b = &m->head;
    const uint8_t *bytes = b->kind == BB_BLOCK_STORED ? m->coded : m->bytes;
    bb_status status = m->status;
    if (status != BB_OK) *err = m->error;
    if (b->kind == BB_BLOCK_ZSTD) status = decode_zstd(m, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "byte %llu", (unsigned long long)m->at);
    uint32_t check = bb_stream_check(b, m->coded, bytes);
    if (check != b->check)
        return bb_fail(err, BB_ERR_FORMAT,
                       "byte %llu: a block of %u bytes is damaged: its checksum is %08x, expected %08x; none of it was written",
                       (unsigned long long)m->at, b->size, check, b->check);
    if (g->options.on_block(g->options.user, bytes, b->size)) return BB_OK;
    return bb_fail(err, BB_ERR_IO, "the output was refused");
}

bb_status bb_block_group_decode(bb_block_group *g, bb_error *err) {
    bb_status status = BB_OK;
    for (int first = 0; first < g->count && status == BB_OK;) status = decode_some(g, &first, err);
    for (int i = 0; i < g->count && status == BB_OK; i++) status = emit_block(g, &g->members[i], err);
    member prepared = g->members[g->count];
    g->members[g->count] = g->members[0];
    g->members[0] = prepared;
    g->count = 0;
    return status;
}
