// SPDX-License-Identifier: MIT
/* Any bytes as a compressed stream: refused, or decoded to as many bytes as the stream says, from its beginning and from the middle.
 * Streams of a tiny model are made when the fuzzer begins. Mutations change a part of one, and make its checksums right again, so that
 * what lies behind them is reached. Long blocks of the model are left out: they only take time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "coding/lanes.h"
#include "coding/stream.h"
#include "core/math.h"

enum { LONGEST = 48, SEEDS = 8, SEED_BYTES = 1 << 12, PARTS = 12, BLOCK = 1 << BB_STREAM_MIN_BLOCK_BITS };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static bb_error err;

static bb_model *tiny_model(void) {
    static bb_model *model;
    const bb_config config = {.vocab_size = 256,
                              .n_layer = 1,
                              .d_model = 8,
                              .n_head = 1,
                              .n_kv_head = 1,
                              .d_ff = 8,
                              .rope_base = 1e4,
                              .norm_eps = 1e-6,
                              .act_quant = true};
    bb_device *device;
    if (model) return model;
    if (bb_device_open("cpu", 1, &device, &err) != BB_OK || bb_model_create(device, &config, 1, &model, &err) != BB_OK) abort();
    return model;
}

/* ---- streams whose checksums are right ----------------------------------------------------------------------------------- */

typedef struct part {
    bb_stream_block head;
    uint8_t body[SEED_BYTES];
} part;

typedef struct stream {
    bb_stream_header header;
    part parts[PARTS];
    int count; /* without tables and the end, which are made from the others */
} stream;

static bool has_lanes(const bb_stream_block *b) { return b->kind == BB_BLOCK_MODEL || b->kind == BB_BLOCK_MIXED; }

/* The bytes of a block, as far as they can be decoded: what a checksum needs. */
static void decode_part(const stream *s, const part *p, uint8_t *bytes) {
    memset(bytes, 0, p->head.size);
    if (p->head.kind == BB_BLOCK_STORED) memcpy(bytes, p->body, p->head.size);
    if (p->head.kind == BB_BLOCK_ZSTD) (void)ZSTD_decompress(bytes, p->head.size, p->body, p->head.coded);
    if (!has_lanes(&p->head) || p->head.size > LONGEST) return;
    const bb_lanes_options options = {.lanes = 1, .window = s->header.window, .kv_cache = s->header.kv_cache};
    bb_lanes *lanes;
    bb_lanes_block block = {
        .coded = {p->body, p->head.coded}, .bytes = bytes, .size = p->head.size, .mixed = p->head.kind == BB_BLOCK_MIXED};
    if (bb_lanes_open(tiny_model(), &options, &lanes, &err) != BB_OK) abort();
    if (bb_lanes_decode(lanes, &block, 1, &err) != BB_OK) abort();
    bb_lanes_close(lanes);
}

/* Writes a stream with right checksums, tables and end, of the parts that fit. */
static size_t write_stream(stream *s, uint8_t *out, size_t room) {
    static uint8_t bytes[BLOCK];
    bb_stream_table table = {.entries = 0};
    bb_stream_block end = {.kind = BB_BLOCK_END};
    XXH3_state_t *hash = XXH3_createState();
    size_t at = BB_STREAM_HEADER_BYTES, rest = bb_stream_table_bytes(PARTS) + BB_STREAM_END_BYTES;
    if (!hash || room < at + rest) abort();
    (void)XXH3_64bits_reset(hash);
    bb_stream_write_header(&s->header, out);
    for (int i = 0; i < s->count; i++) {
        part *p = &s->parts[i];
        if (at + BB_STREAM_BLOCK_BYTES + p->head.coded + rest > room) break;
        decode_part(s, p, bytes);
        p->head.check = bb_stream_check(&p->head, p->body, bytes);
        bb_stream_table_add(&table, &p->head, s->header.block_bits);
        at += bb_stream_write_block(&p->head, out + at);
        memcpy(out + at, p->body, p->head.coded);
        at += p->head.coded;
        end.total += p->head.size;
        (void)XXH3_64bits_update(hash, bytes, p->head.size);
    }
    end.hash = XXH3_64bits_digest(hash);
    (void)XXH3_freeState(hash);
    if (bb_stream_table_due(&table, true)) at += bb_stream_write_table(&table, at, out + at);
    return at + bb_stream_write_block(&end, out + at);
}

/* The parts of a stream, as far as they make sense. */
static void read_stream(const uint8_t *data, size_t size, stream *s) {
    *s = (stream){.header = {.block_bits = BB_STREAM_MIN_BLOCK_BITS, .window = 16}};
    size_t at = BB_STREAM_HEADER_BYTES;
    if (size >= at) (void)bb_stream_read_header(data, &s->header, &err);
    s->header.block_bits = BB_STREAM_MIN_BLOCK_BITS;
    if (s->header.kv_cache > BB_KV_F32) s->header.kv_cache = BB_KV_INT6;
    if (s->header.arithmetic >= BB_ARITHMETIC_COUNT) s->header.arithmetic = BB_ARITHMETIC_CPU;
    s->header.window = (int)bb_clamp(s->header.window, 2, 64);
    if (bb_model_hash(tiny_model(), s->header.model, &err) != BB_OK) abort();
    while (at < size && s->count < PARTS) {
        part *p = &s->parts[s->count];
        size_t head = bb_stream_block_bytes(data[at]);
        if (head == 0 || head > size - at || data[at] == BB_BLOCK_END) break;
        if (bb_stream_read_block(data + at, s->header.block_bits, &p->head, &err) != BB_OK) break;
        at += head;
        if (p->head.coded > size - at || p->head.coded > SEED_BYTES) break;
        memcpy(p->body, data + at, p->head.coded);
        at += p->head.coded;
        s->count += p->head.kind != BB_BLOCK_TABLE;
    }
}

/* ---- streams to begin with ------------------------------------------------------------------------------------------------ */

static uint8_t seeds[SEEDS][SEED_BYTES];
static size_t seed_sizes[SEEDS];

static void add_part(stream *s, bb_block_kind kind, size_t size, bb_bytes body) {
    part *p = &s->parts[s->count++];
    p->head = (bb_stream_block){.kind = kind, .size = (uint32_t)size, .coded = (uint32_t)body.size};
    memcpy(p->body, body.data, body.size);
}

static void add_lanes(stream *s, bool mix, int count, const uint8_t *text, size_t size) {
    const bb_lanes_options options = {.lanes = count, .window = s->header.window, .kv_cache = s->header.kv_cache, .mix = mix};
    bb_lanes *lanes;
    bb_bytes coded;
    if (bb_lanes_open(tiny_model(), &options, &lanes, &err) != BB_OK) abort();
    if (bb_lanes_encode(lanes, text, size, SIZE_MAX, &coded, &err) != BB_OK || !coded.data) abort();
    if (coded.size >= size) coded.size = size - 1; /* the model is not trained: then it decodes to something else */
    add_part(s, mix ? BB_BLOCK_MIXED : BB_BLOCK_MODEL, size, coded);
    bb_lanes_close(lanes);
}

static void make_seeds(void) {
    static uint8_t zeros[BLOCK], zstd[SEED_BYTES], text[LONGEST];
    static stream s;
    for (int i = 0; i < LONGEST; i++) text[i] = (uint8_t) "the same, the same again; "[i % 26];
    bb_bytes frame = {zstd, ZSTD_compress(zstd, sizeof zstd, zeros, sizeof zeros, 3)};
    for (int i = 0; i < SEEDS; i++) {
        read_stream(NULL, 0, &s);
        s.header.kv_cache = (bb_kv_type)(i % 3);
        for (int k = 0; k < i / 2; k++) add_part(&s, BB_BLOCK_ZSTD, BLOCK, frame);
        if (i % 4 == 3) add_part(&s, BB_BLOCK_STORED, LONGEST, (bb_bytes){text, LONGEST});
        if (i > 0 && i % 4 < 3) add_lanes(&s, i % 2, 1, text, LONGEST);
        seed_sizes[i] = write_stream(&s, seeds[i], sizeof seeds[i]);
    }
}

static uint32_t next_number(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Changes one thing of a stream that has right checksums otherwise. */
static void change(stream *s, uint32_t *random) {
    part *p = &s->parts[s->count ? next_number(random) % (uint32_t)s->count : 0];
    switch (next_number(random) % 6) {
    case 0: s->header.window = 2 + (int)(next_number(random) % 60); break;
    case 1: s->header.kv_cache = (bb_kv_type)(next_number(random) % 3); break;
    case 2:
        if (s->count > 1) s->count--;
        break;
    case 3: p->head.kind = (bb_block_kind)(1 + next_number(random) % 5); break;
    case 4: p->head.size = 1 + next_number(random) % LONGEST; break;
    default:
        if (s->count) p->head.coded = (uint32_t)bb_max((int64_t)LLVMFuzzerMutate(p->body, p->head.coded, SEED_BYTES / 2), 1);
        break;
    }
    for (int i = 0; i < s->count; i++) { /* what a block's head must say */
        bb_stream_block *b = &s->parts[i].head;
        if (b->kind == BB_BLOCK_TABLE) b->kind = BB_BLOCK_STORED;
        if (b->kind == BB_BLOCK_STORED) b->size = b->coded;
        if (b->kind != BB_BLOCK_STORED && b->coded >= b->size) b->size = b->coded + 1;
        if (has_lanes(b) && b->size > LONGEST) b->kind = BB_BLOCK_ZSTD;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    static stream s;
    uint32_t random = seed;
    if (seed_sizes[0] == 0) make_seeds();
    if (size < BB_STREAM_HEADER_BYTES || next_number(&random) % 16 == 0) {
        int i = (int)(next_number(&random) % SEEDS);
        if (seed_sizes[i] > max_size) return LLVMFuzzerMutate(data, size, max_size);
        memcpy(data, seeds[i], seed_sizes[i]);
        return seed_sizes[i];
    }
    if (next_number(&random) % 4 == 0 || max_size < SEED_BYTES) return LLVMFuzzerMutate(data, size, max_size);
    read_stream(data, size, &s);
    change(&s, &random);
    return write_stream(&s, data, max_size);
}

/* ---- what is tested -------------------------------------------------------------------------------------------------------- */

static bool count_bytes(void *user, const uint8_t *bytes, size_t size) {
    (void)bytes;
    *(size_t *)user += size;
    return true;
}

static void decode(const uint8_t *data, size_t size) {
    bb_decompressor *d;
    size_t given = 0;
    bb_compress_options o;
    bb_compress_options_default(&o);
    o.on_output = count_bytes;
    o.user = &given;
    if (bb_decompressor_open(tiny_model(), &o, &d, &err) != BB_OK) abort();
    bb_status status = BB_OK;
    for (size_t at = 0; at < size && status == BB_OK; at += 97)
        status = bb_decompressor_write(d, data + at, size - at < 97 ? size - at : 97, &err);
    if (status == BB_OK) (void)bb_decompressor_finish(d, &err);
    bb_decompressor_close(d);
}

static void decode_part_of_file(const uint8_t *data, size_t size) {
    char path[64], *json = NULL;
    size_t given = 0;
    bb_compress_options o;
    bb_compress_options_default(&o);
    o.on_output = count_bytes;
    o.user = &given;
    int fd = memfd_create("stream", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (bb_decompress_range(tiny_model(), &o, path, 65000, 1000, &err) == BB_OK && given > 1000) abort();
    if (bb_compressed_describe(path, &json, &err) == BB_OK) bb_string_free(json);
    (void)close(fd);
}

/* Whether a block of the model would take long. */
static bool takes_long(const uint8_t *data, size_t size) {
    bb_stream_block b;
    bb_stream_header header = {.block_bits = BB_STREAM_MAX_BLOCK_BITS};
    if (size >= BB_STREAM_HEADER_BYTES && bb_stream_read_header(data, &header, &err) == BB_OK && header.window > 1000)
        return true;
    for (size_t at = BB_STREAM_HEADER_BYTES; at + BB_STREAM_END_BYTES <= size;) {
        size_t head = bb_stream_block_bytes(data[at]);
        if (head == 0 || bb_stream_read_block(data + at, BB_STREAM_MAX_BLOCK_BITS, &b, &err) != BB_OK) return false;
        if (has_lanes(&b) && b.size > LONGEST) return true;
        at += head + b.coded;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (takes_long(data, size)) return 0;
    decode(data, size);
    decode_part_of_file(data, size);
    return 0;
}
