// SPDX-License-Identifier: MIT
#include "coding/stream.h"

#include <string.h>
#include <xxhash.h>

#include "model/model.h"

/* Not text, and damaged by programs that convert line ends. */
static const uint8_t magic[4] = {0xBB, 'B', 'Y', '\n'};

static void put(uint8_t **at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) *(*at)++ = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t **at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t) * (*at)++ << 8 * i;
    return value;
}

static const char *const arithmetic_names[] = {[BB_ARITHMETIC_CPU] = "cpu", [BB_ARITHMETIC_REF] = "ref"};

const char *bb_arithmetic_name(bb_arithmetic arithmetic) { return arithmetic_names[arithmetic]; }

bb_status bb_stream_arithmetic(const bb_model *model, bb_arithmetic *out, bb_error *err) {
    const char *name = model->device->ops->name;
    if (!model->config.act_quant)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "the model was trained with --no_act_quant or --dense: its predictions differ between processors, so a "
                       "stream could not be read on another");
    for (int i = 0; i < BB_ARITHMETIC_COUNT; i++)
        if (strcmp(name, arithmetic_names[i]) == 0) {
            *out = (bb_arithmetic)i;
            return BB_OK;
        }
    return bb_fail(err, BB_ERR_UNSUPPORTED, "device %s does not give the same predictions everywhere; compress with cpu", name);
}

void bb_stream_write_header(const bb_stream_header *h, uint8_t out[BB_STREAM_HEADER_BYTES]) {
    uint8_t *at = out;
    memcpy(at, magic, sizeof magic);
    at += sizeof magic;
    put(&at, BB_STREAM_VERSION, 1);
    put(&at, (uint64_t)h->kv_cache | (uint64_t)h->arithmetic << 4, 1);
    put(&at, (uint64_t)h->block_bits, 1);
    put(&at, (uint64_t)h->window, 4);
    put(&at, h->parameters, 8);
    memcpy(at, h->model, sizeof h->model);
    at += sizeof h->model;
    put(&at, XXH3_64bits(out, (size_t)(at - out)), 4);
}

bb_status bb_stream_read_header(const uint8_t in[BB_STREAM_HEADER_BYTES], bb_stream_header *out, bb_error *err) {
    const uint8_t *at = in + sizeof magic;
    if (memcmp(in, magic, sizeof magic) != 0)
        return bb_fail(err, BB_ERR_FORMAT, "byte 0: not a stream of bitbyte compress: it begins with %02x %02x %02x %02x",
                       in[0], in[1], in[2], in[3]);
    int version = (int)get(&at, 1);
    if (version != BB_STREAM_VERSION)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "byte 4: a compressed stream of version %d; this program reads version %d",
                       version, BB_STREAM_VERSION);
    uint64_t kinds = get(&at, 1);
    *out = (bb_stream_header){.kv_cache = (bb_kv_type)(kinds & 15), .arithmetic = (bb_arithmetic)(kinds >> 4)};
    out->block_bits = (int)get(&at, 1);
    uint64_t window = get(&at, 4);
    out->parameters = get(&at, 8);
    memcpy(out->model, at, sizeof out->model);
    at += sizeof out->model;
    uint32_t expected = (uint32_t)XXH3_64bits(in, (size_t)(at - in)), found = (uint32_t)get(&at, 4);
    if (found != expected)
        return bb_fail(err, BB_ERR_FORMAT, "byte 0: the header is damaged: its checksum is %08x, expected %08x", found,
                       expected);
    if (out->kv_cache > BB_KV_F32 || out->arithmetic >= BB_ARITHMETIC_COUNT || out->block_bits < BB_STREAM_MIN_BLOCK_BITS ||
        out->block_bits > BB_STREAM_MAX_BLOCK_BITS || window < 2 || window > BB_STREAM_MAX_WINDOW)
        return bb_fail(err, BB_ERR_FORMAT, "byte 5: kinds %d, block bits %d, window %llu: out of range", (int)kinds,
                       out->block_bits, (unsigned long long)window);
    out->window = (int)window;
    return BB_OK;
}

size_t bb_stream_write_block(const bb_stream_block *b, uint8_t *out) {
    uint8_t *at = out;
    put(&at, b->kind, 1);
    if (b->kind == BB_BLOCK_END) {
        put(&at, b->total, 6);
        put(&at, b->hash, 8);
    } else {
        put(&at, b->size, 4);
        if (b->kind != BB_BLOCK_STORED) put(&at, b->coded, 4);
        put(&at, b->check, 4);
    }
    return (size_t)(at - out);
}

size_t bb_stream_block_bytes(uint8_t first) {
    switch (first) {
    case BB_BLOCK_END: return BB_STREAM_END_BYTES;
    case BB_BLOCK_TABLE: return BB_STREAM_TABLE_HEAD_BYTES;
    case BB_BLOCK_STORED: return BB_STREAM_STORED_BYTES;
    case BB_BLOCK_ZSTD:
    case BB_BLOCK_MODEL:
    case BB_BLOCK_MIXED: return BB_STREAM_BLOCK_BYTES;
    default: return 0;
    }
}

bb_status bb_stream_read_block(const uint8_t *in, int block_bits, bb_stream_block *out, bb_error *err) {
    const uint8_t *at = in;
    *out = (bb_stream_block){.kind = (bb_block_kind)get(&at, 1)};
    if (out->kind == BB_BLOCK_END) {
        out->total = get(&at, 6);
        out->hash = get(&at, 8);
        return BB_OK;
    }
    if (out->kind == BB_BLOCK_TABLE) {
        out->entries = (int)get(&at, 2);
        out->previous = get(&at, 8);
        out->coded = 4 * (uint32_t)out->entries + 4;
        if (out->entries >= 1 && out->entries <= BB_STREAM_TABLE_BLOCKS) return BB_OK;
        return bb_fail(err, BB_ERR_FORMAT, "a table of %d blocks: expected 1 to %d", out->entries, BB_STREAM_TABLE_BLOCKS);
    }
    out->size = (uint32_t)get(&at, 4);
    out->coded = out->kind == BB_BLOCK_STORED ? out->size : (uint32_t)get(&at, 4);
    out->check = (uint32_t)get(&at, 4);
    if (out->size < 1 || out->size > (uint32_t)1 << block_bits || out->coded < 1 ||
        (out->kind != BB_BLOCK_STORED && out->coded >= out->size))
        return bb_fail(err, BB_ERR_FORMAT, "a block of %u bytes in %u: expected 1 to %u, in fewer", out->size, out->coded,
                       (uint32_t)1 << block_bits);
    return BB_OK;
}

uint32_t bb_stream_check(const bb_stream_block *b, const uint8_t *coded, const uint8_t *bytes) {
    uint64_t seed = (uint64_t)b->kind << 56 ^ (uint64_t)b->size << 28 ^ b->coded;
    return (uint32_t)XXH3_64bits_withSeed(bytes, b->size, XXH3_64bits_withSeed(coded, b->coded, seed));
}

void bb_stream_table_add(bb_stream_table *t, const bb_stream_block *b, int block_bits) {
    t->sizes[t->entries++] = (uint32_t)bb_stream_head_bytes(b) + b->coded;
    t->blocks++;
    t->last = b->size < (uint32_t)1 << block_bits;
}

bool bb_stream_table_due(const bb_stream_table *t, bool end) {
    return t->entries == BB_STREAM_TABLE_BLOCKS || (end && t->entries > 0 && t->blocks > 1);
}

size_t bb_stream_table_bytes(int entries) { return BB_STREAM_TABLE_HEAD_BYTES + 4 * (size_t)entries + 4; }

static void put_table(const bb_stream_table *t, uint8_t **at) {
    put(at, BB_BLOCK_TABLE, 1);
    put(at, (uint64_t)t->entries, 2);
    put(at, t->previous, 8);
    for (int i = 0; i < t->entries; i++) put(at, t->sizes[i], 4);
}

size_t bb_stream_write_table(bb_stream_table *t, uint64_t place, uint8_t out[BB_STREAM_TABLE_BYTES]) {
    uint8_t *at = out;
    put_table(t, &at);
    put(&at, XXH3_64bits(out, (size_t)(at - out)), 4);
    t->entries = 0;
    t->previous = place;
    return (size_t)(at - out);
}

bb_status bb_stream_read_table(const bb_stream_block *head, const uint8_t *in, uint32_t *sizes, bb_error *err) {
    bb_stream_table t = {.entries = head->entries, .previous = head->previous};
    uint8_t whole[BB_STREAM_TABLE_BYTES], *to = whole;
    for (int i = 0; i < t.entries; i++) sizes[i] = t.sizes[i] = (uint32_t)get(&in, 4);
    put_table(&t, &to);
    uint32_t expected = (uint32_t)XXH3_64bits(whole, (size_t)(to - whole)), found = (uint32_t)get(&in, 4);
    if (found == expected) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "a table of %d blocks is damaged: its checksum is %08x, expected %08x", head->entries,
                   found, expected);
}

bb_status bb_stream_check_order(const bb_stream_table *seen, const bb_stream_block *next, bb_error *err) {
    bool end = next->kind == BB_BLOCK_END;
    if (next->kind == BB_BLOCK_TABLE && seen->entries > 0 && seen->blocks > 1) return BB_OK;
    if (next->kind == BB_BLOCK_TABLE) return bb_fail(err, BB_ERR_FORMAT, "a table of blocks where there can be none");
    if (bb_stream_table_due(seen, end)) return bb_fail(err, BB_ERR_FORMAT, "the table of %d blocks is missing", seen->entries);
    if (!end && seen->last) return bb_fail(err, BB_ERR_FORMAT, "a block follows the last one");
    return BB_OK;
}

bb_status bb_stream_match_table(bb_stream_table *seen, const bb_stream_block *head, const uint8_t *in, uint64_t at,
                                bb_error *err) {
    uint32_t sizes[BB_STREAM_TABLE_BLOCKS];
    BB_TRY(bb_stream_read_table(head, in, sizes, err));
    if (head->entries != seen->entries || head->previous != seen->previous ||
        memcmp(sizes, seen->sizes, (size_t)seen->entries * sizeof *sizes) != 0)
        return bb_fail(err, BB_ERR_FORMAT, "a table of %d blocks is not that of the %d blocks before it", head->entries,
                       seen->entries);
    seen->last |= seen->entries < BB_STREAM_TABLE_BLOCKS;
    seen->entries = 0;
    seen->previous = at;
    return BB_OK;
}
