// SPDX-License-Identifier: MIT
/* bb_decompressor_*: takes a stream in pieces of any size, and gives its blocks once they are whole and their checksums are right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "coding/lanes.h"
#include "coding/stream.h"
#include "core/math.h"
#include "core/options.h"
#include "model/model.h"

struct bb_decompressor {
    bb_model *model;
    bb_compress_options options;
    bb_lanes *lanes; /* NULL until a block needs the model */
    bb_stream_header header;
    bb_arithmetic arithmetic; /* of the device */
    uint8_t hash_of_model[BB_MODEL_HASH_BYTES];
    bool has_header, has_block, ended;
    bb_stream_block block;
    uint64_t at;           /* byte of the stream that the part in `held` begins with */
    uint8_t *held, *bytes; /* (capacity): a part of the stream; the decoded block */
    size_t size, capacity; /* bytes held */
    XXH3_state_t *hash;
    uint64_t total;
};

bb_status bb_decompressor_open(bb_model *model, const bb_compress_options *given, bb_decompressor **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_compress_options, o, given);
    BB_REQUIRE("on_output", o->on_output ? (const void *)o : NULL);
    bb_arithmetic arithmetic;
    BB_TRY(bb_stream_arithmetic(model, &arithmetic, err));
    bb_decompressor *d = calloc(1, sizeof *d);
    if (!d) return bb_fail(err, BB_ERR_MEMORY, "out of memory for decompression");
    d->model = model;
    d->options = *o;
    d->arithmetic = arithmetic;
    d->capacity = BB_STREAM_HEADER_BYTES;
    d->held = malloc(d->capacity);
    d->hash = XXH3_createState();
    bb_status status = d->held && d->hash ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for decompression");
    if (status == BB_OK) status = bb_model_hash(model, d->hash_of_model, err);
    if (status == BB_OK) {
        (void)XXH3_64bits_reset(d->hash);
        *out = d;
    } else {
        bb_decompressor_close(d);
    }
    return status;
}

void bb_decompressor_close(bb_decompressor *d) {
    if (!d) return;
    bb_lanes_close(d->lanes);
    (void)XXH3_freeState(d->hash);
    free(d->held);
    free(d->bytes);
    free(d);
}

static void hex(const uint8_t *bytes, char out[2 * BB_MODEL_HASH_BYTES + 1]) {
    for (int i = 0; i < BB_MODEL_HASH_BYTES; i++) (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bb_status take_header(bb_decompressor *d, bb_error *err) {
    char theirs[2 * BB_MODEL_HASH_BYTES + 1], ours[2 * BB_MODEL_HASH_BYTES + 1];
    BB_TRY(bb_stream_read_header(d->held, &d->header, err));
    hex(d->header.model, theirs);
    hex(d->hash_of_model, ours);
    if (strcmp(theirs, ours) != 0)
        return bb_fail(err, BB_ERR_FORMAT,
                       "byte 19: made with another model: %s (%llu parameters), and the one given is %s (%llu parameters)",
                       theirs, (unsigned long long)d->header.parameters, ours, (unsigned long long)d->model->table.total);
    if (d->header.arithmetic != d->arithmetic)
        return bb_fail(err, BB_ERR_FORMAT, "byte 5: made on device %s; it can be read there only, and this is %s",
                       bb_arithmetic_name(d->header.arithmetic), bb_arithmetic_name(d->arithmetic));
    size_t capacity = (size_t)1 << d->header.block_bits;
    uint8_t *larger = realloc(d->held, capacity);
    if (larger) d->held = larger;
    d->bytes = malloc(capacity);
    if (!larger || !d->bytes) return bb_fail(err, BB_ERR_MEMORY, "out of memory for blocks of %zu bytes", capacity);
    d->capacity = capacity;
    d->has_header = true;
    return BB_OK;
}

static void on_bytes(void *user, int64_t done) {
    const bb_decompressor *d = user;
    if (d->options.on_progress) d->options.on_progress(d->options.user, (int64_t)d->total + done);
}

static bb_status decode_with_model(bb_decompressor *d, bb_error *err) {
    const bb_lanes_options lanes = {.lanes = 1,
                                    .window = d->header.window,
                                    .kv_cache = d->header.kv_cache,
                                    .stop = d->options.stop,
                                    .on_bytes = on_bytes,
                                    .user = d};
    if (!d->lanes) BB_TRY(bb_lanes_open(d->model, &lanes, &d->lanes, err));
    return bb_lanes_decode(d->lanes, (bb_bytes){d->held, d->block.coded}, d->bytes, d->block.size, err);
}

static bb_status take_block(bb_decompressor *d, bb_error *err) {
    const bb_stream_block *b = &d->block;
    bb_status status = BB_OK;
    if (b->kind == BB_BLOCK_STORED) {
        memcpy(d->bytes, d->held, b->size);
    } else if (b->kind == BB_BLOCK_ZSTD) {
        size_t size = ZSTD_decompress(d->bytes, b->size, d->held, b->coded);
        if (size != b->size)
            status = bb_fail(err, BB_ERR_FORMAT, "a zstd block is damaged: %s",
                             ZSTD_isError(size) ? ZSTD_getErrorName(size) : "it is too short");
    } else {
        status = decode_with_model(d, err);
    }
    if (status == BB_ERR_FORMAT) return bb_fail_prefix(err, status, "byte %llu", (unsigned long long)d->at);
    if (status != BB_OK) return status;
    uint32_t check = bb_stream_check(b, d->held, d->bytes);
    if (check != b->check)
        return bb_fail(
            err, BB_ERR_FORMAT,
            "byte %llu: a block of %u bytes is damaged: its checksum is %08x, expected %08x. Nothing of it was written",
            (unsigned long long)d->at, b->size, check, b->check);
    (void)XXH3_64bits_update(d->hash, d->bytes, b->size);
    d->total += b->size;
    d->has_block = false;
    if (d->options.on_progress) d->options.on_progress(d->options.user, (int64_t)d->total);
    if (d->options.on_output(d->options.user, d->bytes, b->size)) return BB_OK;
    return bb_fail(err, BB_ERR_IO, "the output was refused");
}

static bb_status take_block_head(bb_decompressor *d, bb_error *err) {
    bb_status status = bb_stream_read_block(d->held, d->header.block_bits, &d->block, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "byte %llu", (unsigned long long)d->at);
    d->has_block = d->block.kind != BB_BLOCK_END;
    if (d->has_block) return BB_OK;
    d->ended = true;
    uint64_t hash = XXH3_64bits_digest(d->hash);
    if (d->block.total == d->total && d->block.hash == hash) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the end says %llu bytes and checksum %016llx; %llu and %016llx were found",
                   (unsigned long long)d->at, (unsigned long long)d->block.total, (unsigned long long)d->block.hash,
                   (unsigned long long)d->total, (unsigned long long)hash);
}

/* Bytes of the part that comes next; 0: none begins with the byte held. */
static size_t wanted(const bb_decompressor *d) {
    if (!d->has_header) return BB_STREAM_HEADER_BYTES;
    if (d->has_block) return d->block.coded;
    return d->size ? bb_stream_block_bytes(d->held[0]) : 1;
}

bb_status bb_decompressor_write(bb_decompressor *d, const uint8_t *bytes, size_t size, bb_error *err) {
    BB_REQUIRE("decompressor", d);
    if (size > 0 && !bytes) return bb_fail(err, BB_ERR_ARGUMENT, "bytes is NULL");
    while (size > 0) {
        if (d->ended)
            return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream ends here, but more bytes follow",
                           (unsigned long long)d->at);
        size_t n = (size_t)bb_min((int64_t)size, (int64_t)(wanted(d) - d->size));
        memcpy(d->held + d->size, bytes, n);
        d->size += n;
        bytes += n;
        size -= n;
        size_t want = wanted(d);
        if (want == 0)
            return bb_fail(err, BB_ERR_FORMAT, "byte %llu: expected a block or the end (0 to 3), found %d",
                           (unsigned long long)d->at, d->held[0]);
        if (d->size < want) continue;
        if (!d->has_header)
            BB_TRY(take_header(d, err));
        else if (d->has_block)
            BB_TRY(take_block(d, err));
        else
            BB_TRY(take_block_head(d, err));
        d->at += want;
        d->size = 0;
    }
    return BB_OK;
}

bb_status bb_decompressor_finish(bb_decompressor *d, bb_error *err) {
    BB_REQUIRE("decompressor", d);
    if (d->ended) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream is cut short; %llu bytes were whole",
                   (unsigned long long)(d->at + d->size), (unsigned long long)d->total);
}
