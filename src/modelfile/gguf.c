// SPDX-License-Identifier: MIT
/* Reads GGUF. Every count, length and offset in the header is checked against the file's size before memory is allocated for
 * it. */
#include "modelfile/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/math.h"
#include "modelfile/gguf_names.h"

enum {
    MAX_HEADER_BYTES = 100000000,
    MAX_KEY_BYTES = 65535,
    MAX_NAME_BYTES = 255,
    MAX_ALIGNMENT = 65536,
    MAX_ARRAY_DEPTH = 4,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* of a tensor's header entry: name, rank, one size, type, offset */
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1,           /* key, type, value */
    WINDOW_BYTES = 1 << 16
};

/* A metadata key with its value: text, or the location of an array. */
typedef struct pair {
    char *key, *text;
    uint32_t type, element_type;
    uint64_t count, at;
} pair;

typedef struct gguf {
    bb_tensor_source base;
    int pair_count;
    pair *pairs; /* sorted by key */
    uint64_t alignment;
} gguf;

/* Reads the header from front to back. */
typedef struct cursor {
    const bb_input *in;
    uint64_t at, end;
    uint8_t *window; /* (WINDOW_BYTES): bytes of the file from window_at on */
    uint64_t window_at;
    size_t window_size;
} cursor;

bool bb_gguf_matches(const uint8_t *head, size_t size) { return size >= 4 && memcmp(head, "GGUF", 4) == 0; }

/* ---- values ------------------------------------------------------------------------------------------------------------ */

/* Checks that n bytes are left. what: for the message. */
static bb_status require_bytes(const cursor *c, uint64_t n, const char *what, bb_error *err) {
    if (n <= c->end - c->at) return BB_OK;
    if (c->end < c->in->size)
        return bb_fail(err, BB_ERR_FORMAT, "%s: byte %" PRIu64 ": %s: expected a header of at most %d bytes", c->in->path,
                       c->at, what, MAX_HEADER_BYTES);
    return bb_fail(err, BB_ERR_FORMAT,
                   "%s: byte %" PRIu64 ": %s: expected %" PRIu64 " more bytes, found %" PRIu64
                   " to the end of the file: truncated or damaged?",
                   c->in->path, c->at, what, n, c->end - c->at);
}

static bb_status read_raw(cursor *c, void *out, size_t n, const char *what, bb_error *err) {
    BB_TRY(require_bytes(c, n, what, err));
    if (n > WINDOW_BYTES) {
        BB_TRY(bb_input_read(c->in, c->at, out, n, err));
    } else {
        if (c->at < c->window_at || c->at + n > c->window_at + c->window_size) {
            c->window_at = c->at;
            c->window_size = (size_t)bb_min(WINDOW_BYTES, (int64_t)(c->in->size - c->at));
            BB_TRY(bb_input_read(c->in, c->at, c->window, c->window_size, err));
        }
        memcpy(out, c->window + (c->at - c->window_at), n);
    }
    c->at += n;
    return BB_OK;
}

static bb_status read_u32(cursor *c, uint32_t *out, const char *what, bb_error *err) {
    return read_raw(c, out, sizeof *out, what, err);
}

static bb_status read_u64(cursor *c, uint64_t *out, const char *what, bb_error *err) {
    return read_raw(c, out, sizeof *out, what, err);
}

/* Reads a string of min_length to max_length bytes without zero bytes; the caller frees *out. */
static bb_status read_string(cursor *c, uint64_t min_length, uint64_t max_length, const char *what, char **out, bb_error *err) {
    uint64_t start = c->at, length;
    *out = NULL;
    BB_TRY(read_u64(c, &length, what, err));
    if (length < min_length || length > max_length)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte %" PRIu64 ": %s: expected a string of %" PRIu64 " to %" PRIu64 " bytes, found %" PRIu64,
                       c->in->path, start, what, min_length, max_length, length);
    BB_TRY(require_bytes(c, length, what, err));
    char *text = malloc((size_t)length + 1);
    if (!text) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", c->in->path);
    bb_status status = read_raw(c, text, (size_t)length, what, err);
    text[length] = 0;
    if (status == BB_OK && strlen(text) != length)
        status =
            bb_fail(err, BB_ERR_FORMAT, "%s: byte %" PRIu64 ": %s: a string contains a zero byte", c->in->path, start, what);
    if (status == BB_OK)
        *out = text;
    else
        free(text);
    return status;
}

/* Returns the size of a value of fixed-size type, or 0 for other types. */
static uint64_t value_bytes(uint32_t type) {
    static const uint8_t bytes[] = {
        [BB_GGUF_U8] = 1,  [BB_GGUF_I8] = 1,   [BB_GGUF_U16] = 2, [BB_GGUF_I16] = 2, [BB_GGUF_U32] = 4, [BB_GGUF_I32] = 4,
        [BB_GGUF_F32] = 4, [BB_GGUF_BOOL] = 1, [BB_GGUF_U64] = 8, [BB_GGUF_I64] = 8, [BB_GGUF_F64] = 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static bb_status unknown_type(const cursor *c, uint32_t type, const char *key, bb_error *err) {
    return bb_fail(err, BB_ERR_FORMAT, "%s: byte %" PRIu64 ": key '%s': expected a value type from 0 to %d, found %" PRIu32,
                   c->in->path, c->at, key, BB_GGUF_F64, type);
}

/* Skips the elements of an array. */
static bb_status skip_elements(cursor *c, uint32_t type, uint64_t count, const char *key, int depth, bb_error *err) {
    uint64_t size = value_bytes(type), min_bytes = size ? size : type == BB_GGUF_STRING ? 8 : 12;
    if (!size && type != BB_GGUF_STRING && type != BB_GGUF_ARRAY) return unknown_type(c, type, key, err);
    if (depth > MAX_ARRAY_DEPTH)
        return bb_fail(err, BB_ERR_FORMAT, "%s: byte %" PRIu64 ": key '%s': arrays are nested more than %d deep", c->in->path,
                       c->at, key, MAX_ARRAY_DEPTH);
    if (count > (c->end - c->at) / min_bytes)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte %" PRIu64 ": key '%s': an array of %" PRIu64
                       " elements does not fit into the remaining %" PRIu64 " bytes",
                       c->in->path, c->at, key, count, c->end - c->at);
    if (size) {
        c->at += count * size;
        return BB_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n;
        uint32_t inner;
        if (type == BB_GGUF_STRING) {
            BB_TRY(read_u64(c, &n, key, err));
            BB_TRY(require_bytes(c, n, key, err));
            c->at += n;
        } else {
            BB_TRY(read_u32(c, &inner, key, err));
            BB_TRY(read_u64(c, &n, key, err));
            BB_TRY(skip_elements(c, inner, n, key, depth + 1, err));
        }
    }
    return BB_OK;
}

/* Reads a number or boolean as text. */
static bb_status read_number(cursor *c, pair *p, bb_error *err) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v;
    char text[40];
    BB_TRY(read_raw(c, &v, (size_t)value_bytes(p->type), p->key, err));
    switch ((bb_gguf_value)p->type) {
    case BB_GGUF_U8: (void)snprintf(text, sizeof text, "%d", v.u8); break;
    case BB_GGUF_I8: (void)snprintf(text, sizeof text, "%d", v.i8); break;
    case BB_GGUF_U16: (void)snprintf(text, sizeof text, "%d", v.u16); break;
    case BB_GGUF_I16: (void)snprintf(text, sizeof text, "%d", v.i16); break;
    case BB_GGUF_U32: (void)snprintf(text, sizeof text, "%" PRIu32, v.u32); break;
    case BB_GGUF_I32: (void)snprintf(text, sizeof text, "%" PRId32, v.i32); break;
    case BB_GGUF_F32: (void)snprintf(text, sizeof text, "%.9g", (double)v.f32); break;
    case BB_GGUF_U64: (void)snprintf(text, sizeof text, "%" PRIu64, v.u64); break;
    case BB_GGUF_I64: (void)snprintf(text, sizeof text, "%" PRId64, v.i64); break;
    case BB_GGUF_F64: (void)snprintf(text, sizeof text, "%.17g", v.f64); break;
    case BB_GGUF_BOOL:
        if (v.u8 > 1)
            return bb_fail(err, BB_ERR_FORMAT, "%s: byte %" PRIu64 ": key '%s': expected a boolean, 0 or 1, found %d",
                           c->in->path, c->at - 1, p->key, v.u8);
        (void)snprintf(text, sizeof text, "%s", v.u8 ? "true" : "false");
        break;
    case BB_GGUF_STRING:
    case BB_GGUF_ARRAY: return unknown_type(c, p->type, p->key, err);
    }
    p->text = strdup(text);
    return p->text ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", c->in->path);
}

static bb_status read_pair(cursor *c, pair *p, bb_error *err) {
    BB_TRY(read_string(c, 1, MAX_KEY_BYTES, "key", &p->key, err));
    BB_TRY(read_u32(c, &p->type, p->key, err));
    if (p->type == BB_GGUF_STRING) return read_string(c, 0, MAX_HEADER_BYTES, p->key, &p->text, err);
    if (p->type == BB_GGUF_ARRAY) {
        BB_TRY(read_u32(c, &p->element_type, p->key, err));
        BB_TRY(read_u64(c, &p->count, p->key, err));
        p->at = c->at;
        return skip_elements(c, p->element_type, p->count, p->key, 1, err);
    }
    return value_bytes(p->type) ? read_number(c, p, err) : unknown_type(c, p->type, p->key, err);
}

/* ---- metadata ---------------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b) { return strcmp(((const pair *)a)->key, ((const pair *)b)->key); }

static const pair *find_pair(const gguf *g, const char *key) {
    const pair wanted = {.key = (char *)(uintptr_t)key};
    return g->pairs ? bsearch(&wanted, g->pairs, (size_t)g->pair_count, sizeof wanted, compare_keys) : NULL;
}

static bb_status check_count(const cursor *c, uint64_t count, uint64_t min_bytes, const char *what, bb_error *err) {
    if (count <= (c->end - c->at) / min_bytes) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT,
                   "%s: %" PRIu64 " %s do not fit into the remaining %" PRIu64 " bytes: truncated or damaged?", c->in->path,
                   count, what, c->end - c->at);
}

static bb_status read_alignment(gguf *g, bb_error *err) {
    const pair *p = find_pair(g, "general.alignment");
    g->alignment = BB_GGUF_ALIGNMENT;
    if (!p) return BB_OK;
    uint64_t n = p->type == BB_GGUF_U32 ? strtoull(p->text, NULL, 10) : 0;
    if (n < 8 || n > MAX_ALIGNMENT || (n & (n - 1)))
        return bb_fail(err, BB_ERR_FORMAT, "%s: general.alignment: expected a 32-bit power of two from 8 to %d, found %s",
                       g->base.input.path, MAX_ALIGNMENT, p->text ? p->text : "an array");
    g->alignment = n;
    return BB_OK;
}

static bb_status read_pairs(gguf *g, cursor *c, uint64_t count, bb_error *err) {
    BB_TRY(check_count(c, count, MIN_PAIR_BYTES, "keys", err));
    g->pairs = calloc((size_t)count + 1, sizeof *g->pairs);
    if (!g->pairs) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %" PRIu64 " keys", c->in->path, count);
    for (uint64_t i = 0; i < count; i++) {
        g->pair_count = (int)i + 1;
        BB_TRY(read_pair(c, &g->pairs[i], err));
    }
    qsort(g->pairs, (size_t)count, sizeof *g->pairs, compare_keys);
    for (uint64_t i = 1; i < count; i++)
        if (strcmp(g->pairs[i - 1].key, g->pairs[i].key) == 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: key '%s': duplicate name", c->in->path, g->pairs[i].key);
    return read_alignment(g, err);
}

static const char *metadata_text(const bb_tensor_source *s, const char *key) {
    const pair *p = find_pair((const gguf *)s, key);
    return p ? p->text : NULL;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------------- */

static bb_status read_shape(cursor *c, bb_file_tensor *t, bb_error *err) {
    uint32_t rank;
    BB_TRY(read_u32(c, &rank, t->name, err));
    if (rank < 1 || rank > BB_FILE_MAX_RANK)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected 1 to %d dimensions, found %" PRIu32, c->in->path, t->name,
                       BB_FILE_MAX_RANK, rank);
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) { /* the file has the fastest dimension first */
        uint64_t n;
        BB_TRY(read_u64(c, &n, t->name, err));
        if (n < 1 || n > INT64_MAX)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': dimension %d: expected a size of at least 1, found %" PRIu64,
                           c->in->path, t->name, t->rank - 1 - i, n);
        t->shape[i] = (int64_t)n;
    }
    return BB_OK;
}

static bb_status read_tensor(gguf *g, cursor *c, bb_file_tensor *t, bb_error *err) {
    char *name;
    uint32_t type;
    BB_TRY(read_string(c, 1, MAX_NAME_BYTES, "tensor name", &name, err));
    t->name = name;
    BB_TRY(read_shape(c, t, err));
    BB_TRY(read_u32(c, &type, name, err));
    if (!bb_gguf_type_of(type, &t->dtype))
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: tensor '%s': type %" PRIu32
                       " of GGUF is not supported; F32, F16, BF16, Q8_0, TQ1_0, TQ2_0 and Q2_0 are",
                       c->in->path, name, type);
    BB_TRY(read_u64(c, &t->offset, name, err));
    if (t->shape[t->rank - 1] % bb_file_dtype_elements(t->dtype))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected rows of a multiple of %d elements for %s, found %s",
                       c->in->path, name, bb_file_dtype_elements(t->dtype), bb_file_dtype_name(t->dtype),
                       bb_shape_format(t->rank, t->shape).text);
    if (!bb_file_tensor_bytes(t, &t->bytes))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape %s overflows", c->in->path, name,
                       bb_shape_format(t->rank, t->shape).text);
    if (t->offset % g->alignment)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': expected an offset that is a multiple of %" PRIu64 ", found %" PRIu64, c->in->path,
                       name, g->alignment, t->offset);
    return BB_OK;
}

static int compare_places(const void *left, const void *right) {
    const bb_file_tensor *a = left, *b = right;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Checks that the tensors lie inside the file and do not overlap. */
static bb_status check_extents(const gguf *g, bb_error *err) {
    const bb_tensor_source *s = &g->base;
    uint64_t end = 0;
    for (int i = 0; i < s->count; i++) {
        const bb_file_tensor *t = &s->tensors[i];
        uint64_t data_bytes = s->input.size > s->data_start ? s->input.size - s->data_start : 0;
        if (t->offset > data_bytes || t->bytes > data_bytes - t->offset)
            return bb_fail(err, BB_ERR_FORMAT,
                           "%s: tensor '%s': expected %" PRIu64 " bytes of %s %s at %" PRIu64
                           " of the data, found the data's end at %" PRIu64 ": truncated?",
                           s->input.path, t->name, t->bytes, bb_file_dtype_name(t->dtype),
                           bb_shape_format(t->rank, t->shape).text, t->offset, data_bytes);
        if (t->offset < end)
            return bb_fail(err, BB_ERR_FORMAT,
                           "%s: tensor '%s' at %" PRIu64 " of the data overlaps '%s', which ends at %" PRIu64, s->input.path,
                           t->name, t->offset, s->tensors[i - 1].name, end);
        end = t->offset + t->bytes;
    }
    return BB_OK;
}

static bb_status read_tensors(gguf *g, cursor *c, uint64_t count, bb_error *err) {
    bb_tensor_source *s = &g->base;
    BB_TRY(check_count(c, count, MIN_TENSOR_BYTES, "tensors", err));
    s->tensors = calloc((size_t)count + 1, sizeof *s->tensors);
    if (!s->tensors) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %" PRIu64 " tensors", c->in->path, count);
    for (uint64_t i = 0; i < count; i++) {
        s->count = (int)i + 1;
        BB_TRY(read_tensor(g, c, &s->tensors[i], err));
    }
    s->data_start = (uint64_t)bb_round_up((int64_t)c->at, (int64_t)g->alignment);
    qsort(s->tensors, (size_t)count, sizeof *s->tensors, compare_places);
    BB_TRY(bb_tensor_source_index(s, err));
    return check_extents(g, err);
}

static bb_status read_header(gguf *g, cursor *c, bb_error *err) {
    uint32_t magic, version;
    uint64_t tensors, pairs;
    BB_TRY(read_u32(c, &magic, "the header", err));
    BB_TRY(read_u32(c, &version, "the header", err));
    if (version == 2u << 24 || version == 3u << 24)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian files are supported",
                       c->in->path);
    if (version != 2 && version != BB_GGUF_VERSION)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: version %" PRIu32 " of GGUF is not supported; versions 2 and 3 are",
                       c->in->path, version);
    BB_TRY(read_u64(c, &tensors, "the header", err));
    BB_TRY(read_u64(c, &pairs, "the header", err));
    BB_TRY(read_pairs(g, c, pairs, err));
    return read_tensors(g, c, tensors, err);
}

/* ---- the source -------------------------------------------------------------------------------------------------------- */

static bb_status start(cursor *c, const bb_input *in, uint64_t at, bb_error *err) {
    *c = (cursor){.in = in, .at = at, .end = (uint64_t)bb_min((int64_t)in->size, MAX_HEADER_BYTES)};
    c->window = malloc(WINDOW_BYTES);
    return c->window ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", in->path);
}

static void close_source(bb_tensor_source *s) {
    gguf *g = (gguf *)s;
    for (int i = 0; i < g->pair_count; i++) {
        free(g->pairs[i].key);
        free(g->pairs[i].text);
    }
    for (int i = 0; i < s->count; i++) free((char *)(uintptr_t)s->tensors[i].name);
    bb_input_close(&s->input);
    free(g->pairs);
    free(s->by_name);
    free(s->tensors);
    free(g);
}

static bb_status read_bytes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                            bb_error *err) {
    return bb_input_read(&s->input, s->data_start + t->offset + at, out, size, err);
}

static const bb_tensor_source_ops ops = {
    .format = "gguf", .close = close_source, .metadata = metadata_text, .read = read_bytes};

bb_status bb_gguf_open_input(bb_input *input, bb_tensor_source **out, bb_error *err) {
    cursor c = {.window = NULL};
    bb_status status;
    *out = NULL;
    gguf *g = calloc(1, sizeof *g);
    if (!g) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", input->path);
        bb_input_close(input);
        return status;
    }
    g->base.ops = &ops;
    g->base.input = *input;
    *input = (bb_input){.fd = -1};
    status = start(&c, &g->base.input, 0, err);
    if (status == BB_OK) status = read_header(g, &c, err);
    free(c.window);
    if (status == BB_OK)
        *out = &g->base;
    else
        close_source(&g->base);
    return status;
}

static bb_status check_tokens(const bb_tensor_source *s, cursor *c, bb_error *err) {
    for (int b = 0; b < 256; b++) {
        char *text, hex[8];
        BB_TRY(read_string(c, 0, MAX_HEADER_BYTES, "tokenizer.ggml.tokens", &text, err));
        (void)snprintf(hex, sizeof hex, "<0x%02X>", b);
        bool is_byte = strcmp(text, bb_gguf_byte_token(b).text) == 0 || strcmp(text, hex) == 0;
        bb_status status =
            is_byte
                ? BB_OK
                : bb_fail(err, BB_ERR_UNSUPPORTED,
                          "%s: tokenizer.ggml.tokens: token %d is '%.40s'; only models whose token b is byte b are supported",
                          s->input.path, b, text);
        free(text);
        BB_TRY(status);
    }
    return BB_OK;
}

bb_status bb_gguf_check_tokens(const bb_tensor_source *s, bb_error *err) {
    const pair *p = find_pair((const gguf *)s, "tokenizer.ggml.tokens");
    cursor c;
    if (!p) return BB_OK;
    if (p->type != BB_GGUF_ARRAY || p->element_type != BB_GGUF_STRING || p->count != 256)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.tokens: expected 256 strings, one for each byte, found %" PRIu64, s->input.path,
                       p->count);
    BB_TRY(start(&c, &s->input, p->at, err));
    bb_status status = check_tokens(s, &c, err);
    free(c.window);
    return status;
}
