// SPDX-License-Identifier: MIT
/* bb_decompressor_*: takes a stream in pieces of any size and emits each block after it is complete and its checksum
 * matched. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "coding/block_group.h"
#include "core/math.h"
#include "core/options.h"

struct bb_decompressor {
    bb_model *model;
    bb_compress_options options;
    bb_block_group *group; /* NULL until the header has been read */
    bb_stream_header header;
    bool has_block, ended, failed;
    bb_stream_block block;                /* the block or table whose head was read last */
    bb_stream_table table;                /* of the blocks read so far */
    uint64_t at;                          /* offset in the stream of the part being read */
    uint64_t head_at;                     /* offset of the head of that part */
    size_t size;                          /* bytes of the part read so far */
    uint8_t small[BB_STREAM_TABLE_BYTES]; /* header, head of a block, or table */
    uint8_t *buffer;                      /* where the part is stored: `small`, or coded bytes in the group's memory */
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
    if (d) d->hash = XXH3_createState();
    if (!d || !d->hash) {
        free(d);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for decompression");
    }
    d->model = model;
    d->options = *o;
    d->buffer = d->small;
    (void)XXH3_64bits_reset(d->hash);
    *out = d;
    return BB_OK;
}

void bb_decompressor_close(bb_decompressor *d) {
    if (!d) return;
    bb_block_group_close(d->group);
    (void)XXH3_freeState(d->hash);
    free(d);
}

static bool on_block(void *user, const uint8_t *bytes, size_t size) {
    bb_decompressor *d = user;
    (void)XXH3_64bits_update(d->hash, bytes, size);
    d->total += size;
    if (d->options.on_progress) d->options.on_progress(d->options.user, (int64_t)d->total);
    return d->options.on_output(d->options.user, bytes, size);
}

static void on_bytes(void *user, int64_t done) {
    const bb_decompressor *d = user;
    if (d->options.on_progress) d->options.on_progress(d->options.user, (int64_t)d->total + done);
}

static bb_status handle_header(bb_decompressor *d, bb_error *err) {
    const bb_block_group_options group = {
        .blocks = d->options.blocks, .on_block = on_block, .on_bytes = on_bytes, .user = d, .stop = d->options.stop};
    BB_TRY(bb_stream_read_header(d->buffer, &d->header, err));
    return bb_block_group_open(d->model, &d->header, &group, &d->group, err);
}

/* Prefixes a message with the offset of the part it is about. */
static bb_status here(const bb_decompressor *d, bb_status status, bb_error *err) {
    return status == BB_OK ? status : bb_fail_prefix(err, status, "byte %llu", (unsigned long long)d->at);
}

static bb_status handle_end(bb_decompressor *d, bb_error *err) {
    BB_TRY(bb_block_group_decode(d->group, err));
    uint64_t hash = XXH3_64bits_digest(d->hash);
    d->ended = true;
    if (d->block.total == d->total && d->block.hash == hash) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the end says %llu bytes and checksum %016llx; %llu and %016llx were found",
                   (unsigned long long)d->at, (unsigned long long)d->block.total, (unsigned long long)d->block.hash,
                   (unsigned long long)d->total, (unsigned long long)hash);
}

static bb_status handle_head(bb_decompressor *d, bb_error *err) {
    BB_TRY(here(d, bb_stream_read_block(d->buffer, d->header.block_bits, &d->block, err), err));
    BB_TRY(here(d, bb_stream_check_order(&d->table, &d->block, err), err));
    if (d->block.kind == BB_BLOCK_END) return handle_end(d, err);
    d->head_at = d->at;
    d->has_block = true;
    if (d->block.kind == BB_BLOCK_TABLE) return BB_OK;
    return bb_block_group_prepare(d->group, &d->block, d->at + d->size, &d->buffer, err);
}

/* Takes what follows a head. */
static bb_status handle_body(bb_decompressor *d, bb_error *err) {
    d->has_block = false;
    if (d->block.kind == BB_BLOCK_TABLE)
        return here(d, bb_stream_match_table(&d->table, &d->block, d->buffer, d->head_at, err), err);
    d->buffer = d->small;
    bb_stream_table_add(&d->table, &d->block, d->header.block_bits);
    bb_block_group_add(d->group);
    return bb_block_group_full(d->group) ? bb_block_group_decode(d->group, err) : BB_OK;
}

/* Handles a failure: decodes and emits the complete blocks before it. If one of them fails, too, that error is returned. */
static bb_status fail(bb_decompressor *d, bb_status status, bb_error *err) {
    bb_error before;
    d->failed = true;
    if (!d->group || status != BB_ERR_FORMAT) return status;
    bb_status earlier = bb_block_group_decode(d->group, &before);
    if (earlier == BB_OK) return status;
    *err = before;
    return earlier;
}

/* Returns the size of the part being read, or 0 if no part begins with the byte read. */
static size_t part_size(const bb_decompressor *d) {
    if (!d->group) return BB_STREAM_HEADER_BYTES;
    if (d->has_block) return d->block.coded;
    return d->size ? bb_stream_block_bytes(d->buffer[0]) : 1;
}

bb_status bb_decompressor_write(bb_decompressor *d, const uint8_t *bytes, size_t size, bb_error *err) {
    BB_REQUIRE("decompressor", d);
    if (d->failed || (size > 0 && !bytes))
        return bb_fail(err, BB_ERR_ARGUMENT, d->failed ? "decompression has failed already" : "bytes is NULL");
    while (size > 0) {
        if (d->ended)
            return fail(d, here(d, bb_fail(err, BB_ERR_FORMAT, "the stream ends here, but more bytes follow"), err), err);
        size_t n = (size_t)bb_min((int64_t)size, (int64_t)(part_size(d) - d->size));
        memcpy(d->buffer + d->size, bytes, n);
        d->size += n;
        bytes += n;
        size -= n;
        size_t want = part_size(d);
        bb_status status = BB_OK;
        if (want == 0)
            status = here(
                d, bb_fail(err, BB_ERR_FORMAT, "expected a block, a table or the end (0 to 5), found %d", d->buffer[0]), err);
        else if (d->size == want)
            status = !d->group ? handle_header(d, err) : d->has_block ? handle_body(d, err) : handle_head(d, err);
        if (status != BB_OK) return fail(d, status, err);
        if (d->size < want) continue;
        d->at += want;
        d->size = 0;
    }
    return BB_OK;
}

bb_status bb_decompressor_flush(bb_decompressor *d, bb_error *err) {
    BB_REQUIRE("decompressor", d);
    if (!d->group || d->failed) return BB_OK;
    bb_status status = bb_block_group_decode(d->group, err);
    d->failed = status != BB_OK;
    return status;
}

bb_status bb_decompressor_finish(bb_decompressor *d, bb_error *err) {
    BB_REQUIRE("decompressor", d);
    if (d->ended) return BB_OK;
    BB_TRY(bb_decompressor_flush(d, err));
    return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream is truncated; %llu bytes were decoded",
                   (unsigned long long)(d->at + d->size), (unsigned long long)d->total);
}
