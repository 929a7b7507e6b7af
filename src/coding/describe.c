// SPDX-License-Identifier: MIT
/* Describes a compressed file from its header and the heads of its blocks. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "coding/stream.h"

typedef struct survey {
    FILE *file;
    uint64_t at;
    bb_stream_header header;
    bb_stream_table table;
    uint64_t blocks[BB_BLOCK_KINDS], total; /* blocks: indexed by kind */
} survey;

bool bb_is_compressed(const uint8_t *bytes, size_t size) {
    uint8_t header[BB_STREAM_HEADER_BYTES];
    const bb_stream_header any = {.block_bits = BB_STREAM_MIN_BLOCK_BITS};
    bb_stream_write_header(&any, header);
    return bytes && size >= 4 && memcmp(bytes, header, 4) == 0;
}

static bb_status read_bytes(survey *s, uint8_t *to, size_t n, bb_error *err) {
    size_t got = fread(to, 1, n, s->file);
    if (got < n && ferror(s->file)) return bb_fail(err, BB_ERR_IO, "%s", strerror(errno));
    if (got < n) return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream is truncated", (unsigned long long)(s->at + got));
    s->at += n;
    return BB_OK;
}

static bb_status skip_block(survey *s, const bb_stream_block *b, bb_error *err) {
    uint8_t table[BB_STREAM_TABLE_BYTES];
    uint64_t begin = s->at - bb_stream_head_bytes(b);
    if (b->kind == BB_BLOCK_TABLE) {
        BB_TRY(read_bytes(s, table, b->coded, err));
        return bb_stream_match_table(&s->table, b, table, begin, err);
    }
    bb_stream_table_add(&s->table, b, s->header.block_bits);
    s->total += b->size;
    s->at += b->coded;
    return fseeko(s->file, b->coded, SEEK_CUR) == 0 ? BB_OK : bb_fail(err, BB_ERR_IO, "cannot seek: %s", strerror(errno));
}

static bb_status read_all(survey *s, bb_error *err) {
    uint8_t header[BB_STREAM_HEADER_BYTES], head[BB_STREAM_END_BYTES];
    bb_stream_block b = {.kind = BB_BLOCK_STORED};
    BB_TRY(read_bytes(s, header, sizeof header, err));
    BB_TRY(bb_stream_read_header(header, &s->header, err));
    while (b.kind != BB_BLOCK_END) {
        BB_TRY(read_bytes(s, head, 1, err));
        size_t bytes = bb_stream_block_bytes(head[0]);
        if (bytes == 0)
            return bb_fail(err, BB_ERR_FORMAT, "byte %llu: no block begins with %d", (unsigned long long)s->at - 1, head[0]);
        BB_TRY(read_bytes(s, head + 1, bytes - 1, err));
        uint64_t begin = s->at - bytes;
        bb_status status = bb_stream_read_block(head, s->header.block_bits, &b, err);
        if (status == BB_OK) status = bb_stream_check_order(&s->table, &b, err);
        if (status == BB_OK && b.kind != BB_BLOCK_END) status = skip_block(s, &b, err);
        if (status != BB_OK) return bb_fail_prefix(err, status, "byte %llu", (unsigned long long)begin);
        s->blocks[b.kind]++;
    }
    if (b.total != s->total)
        return bb_fail(err, BB_ERR_FORMAT, "the end says %llu bytes, the blocks have %llu", (unsigned long long)b.total,
                       (unsigned long long)s->total);
    if (getc(s->file) != EOF)
        return bb_fail(err, BB_ERR_FORMAT, "byte %llu: the stream ends here, but more bytes follow", (unsigned long long)s->at);
    return BB_OK;
}

static json_t *survey_json(const survey *s) {
    static const char *const kv_names[] = {[BB_KV_INT6] = "int6", [BB_KV_INT8] = "int8", [BB_KV_F32] = "f32"};
    char hash[2 * BB_MODEL_HASH_BYTES + 1];
    for (int i = 0; i < BB_MODEL_HASH_BYTES; i++) (void)snprintf(hash + 2 * i, 3, "%02x", s->header.model[i]);
    return json_pack("{s:s,s:i,s:s,s:s,s:I,s:i,s:s,s:i,s:I,s:I,s:f,s:{s:I,s:I,s:I,s:I}}", "format", "bitbyte compressed",
                     "version", BB_STREAM_VERSION, "device", bb_arithmetic_name(s->header.arithmetic), "model", hash,
                     "parameters", (json_int_t)s->header.parameters, "context_length", s->header.window, "kv_cache",
                     kv_names[s->header.kv_cache], "block_bytes", 1 << s->header.block_bits, "bytes", (json_int_t)s->total,
                     "compressed_bytes", (json_int_t)s->at, "bits_per_byte",
                     s->total ? 8 * (double)s->at / (double)s->total : 0, "blocks", "model",
                     (json_int_t)s->blocks[BB_BLOCK_MODEL], "mixed", (json_int_t)s->blocks[BB_BLOCK_MIXED], "zstd",
                     (json_int_t)s->blocks[BB_BLOCK_ZSTD], "stored", (json_int_t)s->blocks[BB_BLOCK_STORED]);
}

bb_status bb_compressed_describe(const char *path, char **json, bb_error *err) {
    BB_REQUIRE("json", json);
    *json = NULL;
    BB_REQUIRE("path", path);
    survey s = {.file = fopen(path, "rb")};
    if (!s.file) return bb_fail(err, BB_ERR_IO, "%s: cannot open it: %s", path, strerror(errno));
    bb_status status = read_all(&s, err);
    (void)fclose(s.file);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", path);
    json_t *root = survey_json(&s);
    *json = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    return *json ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory");
}
