// SPDX-License-Identifier: MIT
/* bb_decompress_range: finds the blocks of a range through the tables of the stream, from the last table back, and decodes only
 * them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coding/block_group.h"
#include "core/math.h"
#include "core/options.h"

typedef struct reader {
    FILE *file;
    const bb_compress_options *options;
    uint64_t size; /* of the file, in bytes */
    bb_stream_header header;
    uint64_t total;     /* decompressed size */
    uint64_t at;        /* offset in the text of the next decoded block */
    uint64_t from, end; /* the range */
} reader;

static bb_status read_at(const reader *r, uint64_t at, uint8_t *to, size_t n, bb_error *err) {
    if (at > r->size || n > r->size - at)
        return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream is truncated", (unsigned long long)r->size);
    if (fseeko(r->file, (off_t)at, SEEK_SET) != 0 || fread(to, 1, n, r->file) != n)
        return bb_fail(err, BB_ERR_IO, "cannot read it: %s", strerror(errno));
    return BB_OK;
}

static bb_status read_head(const reader *r, uint64_t at, bb_stream_block *out, bb_error *err) {
    uint8_t head[BB_STREAM_END_BYTES] = {0};
    BB_TRY(read_at(r, at, head, 1, err));
    size_t bytes = bb_stream_block_bytes(head[0]);
    if (bytes == 0) return bb_fail(err, BB_ERR_FORMAT, "byte %llu: no block begins with %d", (unsigned long long)at, head[0]);
    BB_TRY(read_at(r, at, head, bytes, err));
    bb_status status = bb_stream_read_block(head, r->header.block_bits, out, err);
    return status == BB_OK ? status : bb_fail_prefix(err, status, "byte %llu", (unsigned long long)at);
}

/* Reads the header and the end record. */
static bb_status read_ends(reader *r, bb_error *err) {
    uint8_t header[BB_STREAM_HEADER_BYTES];
    bb_stream_block b;
    if (fseeko(r->file, 0, SEEK_END) != 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "a range can be read only from a file, not from a pipe: %s", strerror(errno));
    r->size = (uint64_t)ftello(r->file);
    BB_TRY(read_at(r, 0, header, sizeof header, err));
    BB_TRY(bb_stream_read_header(header, &r->header, err));
    uint64_t at = r->size - BB_STREAM_END_BYTES;
    if (r->size < BB_STREAM_HEADER_BYTES + BB_STREAM_END_BYTES || read_head(r, at, &b, err) != BB_OK || b.kind != BB_BLOCK_END)
        return bb_fail(err, BB_ERR_FORMAT, "byte %llu: no end record: the stream is truncated, or more bytes follow it",
                       (unsigned long long)(r->size < BB_STREAM_END_BYTES ? 0 : at));
    r->total = b.total;
    return BB_OK;
}

/* Reads the table at offset `at`, which must have `entries` blocks. */
static bb_status read_table(const reader *r, uint64_t at, int entries, uint32_t *sizes, bb_stream_block *head, bb_error *err) {
    uint8_t bytes[4 * BB_STREAM_TABLE_BLOCKS + 4];
    BB_TRY(read_head(r, at, head, err));
    if (head->kind != BB_BLOCK_TABLE || head->entries != entries)
        return bb_fail(err, BB_ERR_FORMAT, "byte %llu: expected the table of %d blocks", (unsigned long long)at, entries);
    BB_TRY(read_at(r, at + BB_STREAM_TABLE_HEAD_BYTES, bytes, head->coded, err));
    bb_status status = bb_stream_read_table(head, bytes, sizes, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "byte %llu", (unsigned long long)at);
    uint64_t begin = head->previous ? head->previous + BB_STREAM_TABLE_BYTES : BB_STREAM_HEADER_BYTES;
    for (int i = 0; i < entries; i++) begin += sizes[i];
    if (begin == at) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "byte %llu: a table whose blocks would end at byte %llu", (unsigned long long)at,
                   (unsigned long long)begin);
}

/* Finds the offset of a block in the stream. */
static bb_status find_block(const reader *r, uint64_t block, uint64_t *out, bb_error *err) {
    uint32_t sizes[BB_STREAM_TABLE_BLOCKS];
    bb_stream_block head;
    uint64_t blocks = (r->total + ((uint64_t)1 << r->header.block_bits) - 1) >> r->header.block_bits;
    *out = BB_STREAM_HEADER_BYTES;
    if (blocks < 2) return BB_OK;
    uint64_t last = (blocks - 1) / BB_STREAM_TABLE_BLOCKS, wanted = block / BB_STREAM_TABLE_BLOCKS;
    int entries = (int)(blocks - last * BB_STREAM_TABLE_BLOCKS);
    uint64_t at = r->size - BB_STREAM_END_BYTES - bb_stream_table_bytes(entries);
    for (uint64_t i = last;; i--) {
        BB_TRY(read_table(r, at, entries, sizes, &head, err));
        if ((head.previous == 0) != (i == 0))
            return bb_fail(err, BB_ERR_FORMAT, "byte %llu: table %llu says that the one before it is at byte %llu",
                           (unsigned long long)at, (unsigned long long)i, (unsigned long long)head.previous);
        if (i == wanted) break;
        at = head.previous;
        entries = BB_STREAM_TABLE_BLOCKS;
    }
    if (head.previous) *out = head.previous + BB_STREAM_TABLE_BYTES;
    for (uint64_t i = 0; i < block % BB_STREAM_TABLE_BLOCKS; i++) *out += sizes[i];
    return BB_OK;
}

static bool on_block(void *user, const uint8_t *bytes, size_t size) {
    reader *r = user;
    uint64_t first = r->from > r->at ? r->from - r->at : 0;
    uint64_t end = (uint64_t)bb_min((int64_t)(r->end - r->at), (int64_t)size);
    r->at += size;
    return r->options->on_output(r->options->user, bytes + first, (size_t)(end - first));
}

static void on_bytes(void *user, int64_t done) {
    const reader *r = user;
    if (r->options->on_progress) r->options->on_progress(r->options->user, (int64_t)r->at + done);
}

/* Decodes the blocks from offset `at` of the stream to the end of the range. */
static bb_status decode(reader *r, bb_block_group *group, uint64_t at, bb_error *err) {
    uint64_t next = r->at;
    while (next < r->end) {
        bb_stream_block b;
        uint8_t *coded;
        BB_TRY(read_head(r, at, &b, err));
        uint64_t body = at + bb_stream_head_bytes(&b);
        uint64_t expected = (uint64_t)bb_min((int64_t)1 << r->header.block_bits, (int64_t)(r->total - next));
        if (b.kind != BB_BLOCK_TABLE) {
            if (b.size != expected)
                return bb_fail(err, BB_ERR_FORMAT, "byte %llu: expected a block of %llu bytes, found %u",
                               (unsigned long long)at, (unsigned long long)expected, b.size);
            BB_TRY(bb_block_group_prepare(group, &b, body, &coded, err));
            BB_TRY(read_at(r, body, coded, b.coded, err));
            bb_block_group_add(group);
            next += b.size;
        }
        at = body + b.coded;
        if (bb_block_group_full(group)) BB_TRY(bb_block_group_decode(group, err));
    }
    /* a stream of one block has no table, so nothing else says where the block ends */
    if (r->total <= (uint64_t)1 << r->header.block_bits && at != r->size - BB_STREAM_END_BYTES)
        return bb_fail(err, BB_ERR_FORMAT, "byte %llu: expected the end of the stream", (unsigned long long)at);
    return bb_block_group_decode(group, err);
}

static bb_status read_range(reader *r, bb_model *model, uint64_t length, bb_error *err) {
    bb_block_group *group;
    const bb_block_group_options options = {
        .blocks = r->options->blocks, .on_block = on_block, .on_bytes = on_bytes, .user = r, .stop = r->options->stop};
    uint64_t at;
    BB_TRY(read_ends(r, err));
    if (r->from > r->total)
        return bb_fail(err, BB_ERR_ARGUMENT, "the range begins at byte %llu, beyond the %llu bytes of the text",
                       (unsigned long long)r->from, (unsigned long long)r->total);
    r->end = length > r->total - r->from ? r->total : r->from + length;
    BB_TRY(bb_block_group_open(model, &r->header, &options, &group, err));
    bb_status status = BB_OK;
    if (r->end > r->from) {
        uint64_t first = r->from >> r->header.block_bits;
        r->at = first << r->header.block_bits;
        status = find_block(r, first, &at, err);
        if (status == BB_OK) status = decode(r, group, at, err);
    }
    bb_block_group_close(group);
    return status;
}

bb_status bb_decompress_range(bb_model *model, const bb_compress_options *given, const char *path, uint64_t offset,
                              uint64_t length, bb_error *err) {
    BB_REQUIRE("model, options, path", model, given, path);
    BB_OPTIONS_READ(bb_compress_options, o, given);
    BB_REQUIRE("on_output", o->on_output ? (const void *)o : NULL);
    reader r = {.file = fopen(path, "rb"), .options = o, .from = offset};
    if (!r.file) return bb_fail(err, BB_ERR_IO, "cannot open it: %s", strerror(errno));
    bb_status status = read_range(&r, model, length, err);
    (void)fclose(r.file);
    return status;
}
