// SPDX-License-Identifier: MIT
/* bb_compressor_*: collects blocks, compresses each with the model and with zstd, and writes the smallest of these results and
 * the bytes themselves. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "coding/lanes.h"
#include "coding/stream.h"
#include "core/math.h"
#include "core/options.h"
#include "inference/context.h"

enum { ZSTD_LEVEL = 19, MAX_WINDOW = 1024 };

struct bb_compressor {
    bb_model *model;
    bb_compress_options options;
    bb_lanes *lanes;
    bb_stream_header header;
    bool begun, finished;
    uint8_t *block; /* (1 << block_bits) */
    size_t held, block_size;
    uint8_t *zstd; /* (block_size) */
    XXH3_state_t *hash;
    uint64_t total, written; /* bytes of input, bytes of output */
    bb_stream_table table;
};

BB_OPTIONS_DEFAULTS(bb_compress_options, .lanes = 16, .block_bytes = 1 << 22);

bb_status bb_compress_options_level(bb_compress_options *options, int level, bb_error *err) {
    static const struct {
        int lanes, block_bits, window;
    } levels[] = {{64, 22, 256}, {64, 22, 512}, {32, 22, 512}, {32, 22, 0}, {16, 22, 0},
                  {8, 22, 0},    {4, 23, 0},    {2, 24, 0},    {1, 24, 0}};
    BB_REQUIRE("options", options);
    bb_compress_options o;
    bb_compress_options_default(&o);
    BB_TRY(bb_options_read(&o, sizeof o, options, "bb_compress_options", err));
    if (level < 1 || level > 9) return bb_fail(err, BB_ERR_ARGUMENT, "level %d must be from 1 to 9", level);
    o.lanes = levels[level - 1].lanes;
    o.block_bytes = 1 << levels[level - 1].block_bits;
    o.mix = level >= 7;
    o.context_length = levels[level - 1].window;
    bb_options_write(options, &o, sizeof o);
    return BB_OK;
}

static bb_status check_options(const bb_compress_options *o, bb_error *err) {
    bool power = o->block_bytes > 0 && (o->block_bytes & (o->block_bytes - 1)) == 0;
    if (!power || o->block_bytes < 1 << BB_STREAM_MIN_BLOCK_BITS || o->block_bytes > 1 << BB_STREAM_MAX_BLOCK_BITS)
        return bb_fail(err, BB_ERR_ARGUMENT, "block_bytes %d must be a power of two from %d to %d", o->block_bytes,
                       1 << BB_STREAM_MIN_BLOCK_BITS, 1 << BB_STREAM_MAX_BLOCK_BITS);
    if (o->lanes < 1 || o->lanes > BB_MAX_LANES)
        return bb_fail(err, BB_ERR_ARGUMENT, "lanes %d must be from 1 to %d", o->lanes, BB_MAX_LANES);
    if (o->context_length < 0 || o->context_length == 1 || o->context_length > BB_STREAM_MAX_WINDOW)
        return bb_fail(err, BB_ERR_ARGUMENT, "context_length %d must be from 2 to %d, or 0", o->context_length,
                       BB_STREAM_MAX_WINDOW);
    if (o->kv_cache != BB_KV_INT6 && o->kv_cache != BB_KV_INT8 && o->kv_cache != BB_KV_F32)
        return bb_fail(err, BB_ERR_ARGUMENT, "kv_cache %d is not known", (int)o->kv_cache);
    return BB_OK;
}

static void on_bytes(void *user, int64_t done) {
    const bb_compressor *c = user;
    if (c->options.on_progress) c->options.on_progress(c->options.user, (int64_t)c->total + done);
}

bb_status bb_compressor_open(bb_model *model, const bb_compress_options *given, bb_compressor **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_compress_options, o, given);
    BB_REQUIRE("on_output", o->on_output ? (const void *)o : NULL);
    BB_TRY(check_options(o, err));
    if (model->config.vocab_size != 256)
        return bb_fail(err, BB_ERR_ARGUMENT, "the model has %d symbols; compression needs 256", model->config.vocab_size);
    bb_arithmetic arithmetic;
    BB_TRY(bb_stream_arithmetic(model, &arithmetic, err));
    bb_compressor *c = calloc(1, sizeof *c);
    if (!c) return bb_fail(err, BB_ERR_MEMORY, "out of memory for compression");
    c->model = model;
    c->options = *o;
    c->block_size = (size_t)o->block_bytes;
    c->header =
        (bb_stream_header){.arithmetic = arithmetic, .kv_cache = o->kv_cache, .parameters = (uint64_t)model->table.total};
    while (1 << c->header.block_bits < o->block_bytes) c->header.block_bits++;
    c->header.window = o->context_length ? o->context_length : (int)bb_clamp(model->trained_length, 2, MAX_WINDOW);
    c->block = malloc(c->block_size);
    c->zstd = malloc(c->block_size);
    c->hash = XXH3_createState();
    bb_status status = BB_OK;
    if (!c->block || !c->zstd || !c->hash)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for blocks of %zu bytes", c->block_size);
    if (status == BB_OK) status = bb_model_hash(model, c->header.model, err);
    const bb_lanes_options lanes = {.lanes = o->lanes,
                                    .window = c->header.window,
                                    .kv_cache = o->kv_cache,
                                    .mix = o->mix,
                                    .stop = o->stop,
                                    .on_bytes = on_bytes,
                                    .user = c};
    if (status == BB_OK) status = bb_lanes_open(model, &lanes, &c->lanes, err);
    if (status == BB_OK) {
        (void)XXH3_64bits_reset(c->hash);
        *out = c;
    } else {
        bb_compressor_close(c);
    }
    return status;
}

void bb_compressor_close(bb_compressor *c) {
    if (!c) return;
    bb_lanes_close(c->lanes);
    (void)XXH3_freeState(c->hash);
    free(c->block);
    free(c->zstd);
    free(c);
}

static bb_status emit(bb_compressor *c, const void *bytes, size_t size, bb_error *err) {
    c->written += size;
    if (size == 0 || c->options.on_output(c->options.user, bytes, size)) return BB_OK;
    return bb_fail(err, BB_ERR_IO, "the output was refused");
}

static bb_status begin(bb_compressor *c, bb_error *err) {
    uint8_t header[BB_STREAM_HEADER_BYTES];
    if (c->begun) return BB_OK;
    c->begun = true;
    bb_stream_write_header(&c->header, header);
    return emit(c, header, sizeof header, err);
}

static bb_status write_table(bb_compressor *c, bb_error *err) {
    uint8_t bytes[BB_STREAM_TABLE_BYTES];
    return emit(c, bytes, bb_stream_write_table(&c->table, c->written, bytes), err);
}

static bb_status write_block(bb_compressor *c, bb_error *err) {
    bb_stream_block b = {.kind = BB_BLOCK_STORED, .size = (uint32_t)c->held, .coded = (uint32_t)c->held};
    bb_bytes coded, best = {c->block, c->held};
    uint8_t head[BB_STREAM_END_BYTES];
    BB_TRY(begin(c, err));
    if (bb_stream_table_due(&c->table, false)) BB_TRY(write_table(c, err));
    /* a coded head is 4 bytes longer than a stored one; head and data must be smaller in all */
    size_t limit = c->held > 4 ? c->held - 5 : 0, zstd = ZSTD_compress(c->zstd, limit, c->block, c->held, ZSTD_LEVEL);
    if (limit && !ZSTD_isError(zstd)) {
        b.kind = BB_BLOCK_ZSTD;
        best = (bb_bytes){c->zstd, zstd};
    }
    BB_TRY(bb_lanes_encode(c->lanes, c->block, c->held, b.kind == BB_BLOCK_ZSTD ? zstd : limit, &coded, err));
    if (coded.data) {
        b.kind = c->options.mix ? BB_BLOCK_MIXED : BB_BLOCK_MODEL;
        best = coded;
    }
    b.coded = (uint32_t)best.size;
    b.check = bb_stream_check(&b, best.data, c->block);
    BB_TRY(emit(c, head, bb_stream_write_block(&b, head), err));
    BB_TRY(emit(c, best.data, best.size, err));
    (void)XXH3_64bits_update(c->hash, c->block, c->held);
    bb_stream_table_add(&c->table, &b, c->header.block_bits);
    c->total += c->held;
    c->held = 0;
    if (c->options.on_progress) c->options.on_progress(c->options.user, (int64_t)c->total);
    return BB_OK;
}

bb_status bb_compressor_write(bb_compressor *c, const uint8_t *bytes, size_t size, bb_error *err) {
    BB_REQUIRE("compressor", c);
    if (c->finished || (size > 0 && !bytes))
        return bb_fail(err, BB_ERR_ARGUMENT, c->finished ? "the stream is finished" : "bytes is NULL");
    while (size > 0) {
        size_t n = (size_t)bb_min((int64_t)size, (int64_t)(c->block_size - c->held));
        memcpy(c->block + c->held, bytes, n);
        c->held += n;
        bytes += n;
        size -= n;
        if (c->held == c->block_size) BB_TRY(write_block(c, err));
    }
    return BB_OK;
}

bb_status bb_compressor_finish(bb_compressor *c, bb_error *err) {
    BB_REQUIRE("compressor", c);
    if (c->finished) return bb_fail(err, BB_ERR_ARGUMENT, "the stream is finished");
    if (c->held) BB_TRY(write_block(c, err));
    BB_TRY(begin(c, err));
    if (bb_stream_table_due(&c->table, true)) BB_TRY(write_table(c, err));
    c->finished = true;
    uint8_t end[BB_STREAM_END_BYTES];
    const bb_stream_block b = {.kind = BB_BLOCK_END, .total = c->total, .hash = XXH3_64bits_digest(c->hash)};
    return emit(c, end, bb_stream_write_block(&b, end), err);
}
