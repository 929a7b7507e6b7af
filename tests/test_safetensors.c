// SPDX-License-Identifier: MIT
/* safetensors: which files are read or refused, with which messages, and the bytes that are written. */
#include <inttypes.h>
#include <jansson.h>
#include <xxhash.h>

#include "core/file.h"
#include "limited_memory.h"
#include "model/config.h"
#include "modelfile/safetensors.h"
#include "scratch.h"
#include "support.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Length, header, and `data_bytes` bytes that count up from 0. */
static const char *write_file(uint64_t length, const char *header, size_t data_bytes) {
    const char *path = scratch_path("f.safetensors");
    size_t header_bytes = strlen(header);
    unsigned char *file = calloc(1, 8 + header_bytes + data_bytes + 1);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(length >> (8 * i));
    memcpy(file + 8, header, header_bytes); /* NOLINT(bugprone-not-null-terminated-result): bytes, no string */
    for (size_t i = 0; i < data_bytes; i++) file[8 + header_bytes + i] = (unsigned char)i;
    assert_true(scratch_write(path, file, 8 + header_bytes + data_bytes));
    free(file);
    return path;
}

static void expect_refused(const char *path, bb_status expected, const char *part, const char *other_part) {
    bb_tensor_source *st = (bb_tensor_source *)&st;
    memset(&test_error, 0, sizeof test_error);
    bb_status status = bb_safetensors_open(path, &st, &test_error);
    if (status != expected)
        fail_msg("status %s, not %s: %s", bb_status_name(status), bb_status_name(expected), test_error.message);
    assert_null(st);
    assert_int_equal(test_error.code, expected);
    assert_message(test_error, path);
    assert_message(test_error, part);
    assert_message(test_error, other_part);
    assert_int_equal(bb_safetensors_open(path, &st, NULL), expected);
}

static void other_files_are_refused(void **state) {
    (void)state;
    expect_refused(scratch_path("absent"), BB_ERR_IO, "No such file", "open");
    expect_refused(scratch_dir, BB_ERR_IO, "found a directory", "");
    const char *path = scratch_path("f");
    assert_true(scratch_write(path, "", 0));
    expect_refused(path, BB_ERR_FORMAT, "at least 8 bytes, found 0 bytes", "");
    assert_true(scratch_write(path, "1234567", 7));
    expect_refused(path, BB_ERR_FORMAT, "at least 8 bytes, found 7 bytes", "");
    assert_true(scratch_write(path, "\0\0\0\0\0\0\0\0", 8));
    expect_refused(path, BB_ERR_FORMAT, "byte 8", "begins with '{'");
    assert_true(scratch_write(path, "#!/bin/sh\necho\n", 15));
    expect_refused(path, BB_ERR_FORMAT, "byte 0: expected a header length of at most 100000000", "not a safetensors file?");
}

static void header_lengths_are_checked(void **state) {
    (void)state;
    expect_refused(write_file(3, "{}", 0), BB_ERR_FORMAT, "byte 0: expected a header of 3 bytes", "end of the file after 2");
    expect_refused(write_file(100000001, "{}", 0), BB_ERR_FORMAT, "at most 100000000, found 100000001", "byte 0");
    expect_refused(write_file(UINT64_MAX, "{}", 0), BB_ERR_FORMAT, "found 18446744073709551615", "byte 0");
    expect_refused(write_file((uint64_t)1 << 63, "{}", 0), BB_ERR_FORMAT, "found 9223372036854775808", "byte 0");
    expect_refused(write_file(1, "{}", 0), BB_ERR_FORMAT, "not JSON at byte 9", "");
}

/* t: a tensor's entry. */
#define ENTRY(dtype, shape, begin, end) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define ONE(dtype, shape, begin, end) "{\"t\":" ENTRY(dtype, shape, begin, end) "}"
#define F32 "\"F32\""

static void malformed_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        bb_status status;
        const char *part, *other_part;
    } cases[] = {
        /* not JSON, or not the right JSON */
        {"hello", 0, BB_ERR_FORMAT, "byte 8", "begins with '{'"},
        {" {}", 0, BB_ERR_FORMAT, "byte 8", "begins with '{'"},
        {"[]", 0, BB_ERR_FORMAT, "byte 8", "begins with '{'"},
        {"{\"t\"}", 0, BB_ERR_FORMAT, "not JSON at byte 13", "':' expected"},
        {"{}x", 0, BB_ERR_FORMAT, "not JSON at byte 11", "end of file expected"},
        {"{\"t\xff\":1}", 0, BB_ERR_FORMAT, "not JSON", "unable to decode byte 0xff"},
        {"{\"t\\u0000\":1}", 0, BB_ERR_FORMAT, "not JSON", ""},
        {"{\"t\":" ENTRY(F32, "[]", 0, 4) ",\"t\":" ENTRY(F32, "[]", 4, 8) "}", 8, BB_ERR_FORMAT, "duplicate object key",
         "\"t\""},
        {"{\"t\":{\"dtype\":" F32 ",\"shape\":[],\"shape\":[],\"data_offsets\":[0,4]}}", 4, BB_ERR_FORMAT, "duplicate",
         "\"shape\""},
        {"{\"t\":[]}", 0, BB_ERR_FORMAT, "'t': expected an object", ""},
        /* metadata */
        {"{\"__metadata__\":[]}", 0, BB_ERR_FORMAT, "__metadata__: expected an object", ""},
        {"{\"__metadata__\":{\"step\":5}}", 0, BB_ERR_FORMAT, "'step': expected a string", "__metadata__"},
        {"{\"__metadata__\":{\"config\":{}}}", 0, BB_ERR_FORMAT, "'config': expected a string", "__metadata__"},
        /* dtype */
        {"{\"t\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, BB_ERR_FORMAT, "'t': dtype: expected a string", ""},
        {ONE("32", "[]", 0, 4), 4, BB_ERR_FORMAT, "'t': dtype: expected a string", ""},
        {ONE("\"f32\"", "[]", 0, 4), 4, BB_ERR_FORMAT, "'t': unknown dtype 'f32'", ""},
        {ONE("\"F8_E4M3\"", "[4]", 0, 4), 4, BB_ERR_UNSUPPORTED, "'t': unsupported dtype F8_E4M3", ""},
        {ONE("\"U16\"", "[2]", 0, 4), 4, BB_ERR_UNSUPPORTED, "'t': unsupported dtype U16", ""},
        /* shape */
        {"{\"t\":{\"dtype\":" F32 ",\"data_offsets\":[0,4]}}", 4, BB_ERR_FORMAT, "'t': shape: expected an array", ""},
        {ONE(F32, "1", 0, 4), 4, BB_ERR_FORMAT, "'t': shape: expected an array", ""},
        {ONE(F32, "[1,\"1\"]", 0, 4), 4, BB_ERR_FORMAT, "'t': shape[1]: expected an integer", ""},
        {ONE(F32, "[1.0]", 0, 4), 4, BB_ERR_FORMAT, "'t': shape[0]: expected an integer", ""},
        {ONE(F32, "[-1,-1]", 0, 4), 4, BB_ERR_FORMAT, "'t': shape[0]: expected a size, found -1", ""},
        {ONE(F32, "[1,1,1,1,1]", 0, 4), 4, BB_ERR_UNSUPPORTED, "'t': shape: expected at most 4 dimensions, found 5", ""},
        {ONE(F32, "[99999999999999999999]", 0, 4), 4, BB_ERR_FORMAT, "too big integer", ""},
        {ONE(F32, "[4611686018427387904]", 0, 0), 0, BB_ERR_FORMAT, "'t': shape (4611686018427387904) overflows", ""},
        {ONE(F32, "[4294967296,4294967297]", 0, 4), 4, BB_ERR_FORMAT, "(4294967296, 4294967297) overflows", ""},
        {ONE("\"I8\"", "[9223372036854775807,2]", 0, 4), 4, BB_ERR_FORMAT, "overflows", ""},
        {ONE(F32, "[2,3]", 0, 20), 20, BB_ERR_FORMAT, "'t' at byte 65: expected 24 bytes for F32 (2, 3), found 20", ""},
        {ONE("\"BF16\"", "[2,3]", 0, 24), 24, BB_ERR_FORMAT, "expected 12 bytes for BF16 (2, 3), found 24", ""},
        /* offsets */
        {"{\"t\":{\"dtype\":" F32 ",\"shape\":[]}}", 4, BB_ERR_FORMAT, "'t': data_offsets: expected two integers", ""},
        {"{\"t\":{\"dtype\":" F32 ",\"shape\":[],\"data_offsets\":[0,4,8]}}", 8, BB_ERR_FORMAT,
         "'t': data_offsets: expected two", ""},
        {"{\"t\":{\"dtype\":" F32 ",\"shape\":[],\"data_offsets\":[\"0\",4]}}", 4, BB_ERR_FORMAT,
         "'t': data_offsets: expected two", ""},
        {"{\"t\":{\"dtype\":" F32 ",\"shape\":[],\"data_offsets\":4}}", 4, BB_ERR_FORMAT, "'t': data_offsets: expected two",
         ""},
        {ONE(F32, "[]", -4, 0), 4, BB_ERR_FORMAT, "0 <= begin <= end, found [-4, 0]", "'t'"},
        {ONE(F32, "[]", 4, 0), 4, BB_ERR_FORMAT, "0 <= begin <= end, found [4, 0]", "'t'"},
        {ONE(F32, "[]", 0, 4), 3, BB_ERR_FORMAT, "'t': expected its data up to byte 65, found the end of the file at byte 64",
         "truncated?"},
        {ONE(F32, "[]", 0, 9223372036854775807), 4, BB_ERR_FORMAT, "found the end of the file", "'t'"},
        {ONE(F32, "[]", 9223372036854775803, 9223372036854775807), 4, BB_ERR_FORMAT, "found the end of the file", "'t'"},
        /* the data section */
        {ONE(F32, "[]", 4, 8), 8, BB_ERR_FORMAT,
         "'t': expected it at byte 61, after the start of the data section, found it at byte 65", "a gap"},
        {ONE(F32, "[]", 0, 4), 5, BB_ERR_FORMAT, "the end of the file at byte 65, after t, found 1 trailing bytes", ""},
        {"{}", 1, BB_ERR_FORMAT, "found 1 trailing bytes", ""},
        {"{\"b\":" ENTRY(F32, "[2]", 4, 12) ",\"a\":" ENTRY(F32, "[2]", 0, 8) "}", 12, BB_ERR_FORMAT,
         "'b': expected it at byte 124, after a, found it at byte 120", "overlap"},
        {"{\"a\":" ENTRY(F32, "[1]", 0, 4) ",\"b\":" ENTRY(F32, "[1]", 0, 4) "}", 4, BB_ERR_FORMAT, "'b'", "overlap"},
        {"{\"a\":" ENTRY(F32, "[1]", 0, 4) ",\"b\":" ENTRY(F32, "[1]", 8, 12) "}", 12, BB_ERR_FORMAT, "'b'", "a gap"},
        {"{\"a\":" ENTRY(F32, "[2]", 0, 8) ",\"b\":" ENTRY(F32, "[0]", 4, 4) "}", 8, BB_ERR_FORMAT, "'b'", "overlap"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        expect_refused(write_file(strlen(cases[i].header), cases[i].header, cases[i].data_bytes), cases[i].status,
                       cases[i].part, cases[i].other_part);
}

/* A valid file cut short anywhere is refused. */
static void every_truncation_is_refused(void **state) {
    (void)state;
    const char *header = "{\"a\":" ENTRY("\"U8\"", "[5]", 0, 5) ",\"b\":" ENTRY("\"I8\"", "[2,2]", 5, 9) "}";
    size_t whole = 8 + strlen(header) + 9;
    bb_tensor_source *st;
    const char *path = write_file(strlen(header), header, 9);
    assert_ok(bb_safetensors_open(path, &st, &test_error));
    bb_tensor_source_close(st);
    for (size_t size = whole; size-- > 0;) {
        assert_int_equal(truncate(path, (off_t)size), 0);
        expect_refused(path, BB_ERR_FORMAT, "", "");
    }
}

static void good_files_are_read(void **state) {
    (void)state;
    bb_tensor_source *st;
    assert_ok(bb_safetensors_open(write_file(2, "{}", 0), &st, &test_error));
    assert_int_equal(bb_tensor_source_count(st), 0);
    assert_null(bb_tensor_source_find(st, "t"));
    assert_null(bb_tensor_source_metadata(st, "t"));
    bb_tensor_source_close(st);

    /* Out of order, an empty tensor between two, a scalar, padding, unknown keys, and data at an odd address. */
    const char *header = "{\"z\":" ENTRY(
        "\"I64\"", "[]", 3, 11) ",\"__metadata__\":{\"k\":\"v\",\"\":\"\"},\"a\":"
                                "{\"more\":1,\"dtype\":\"BOOL\",\"shape\":[3,1,1,1],\"data_offsets\":[0,3]},\"e\":" ENTRY(
                                    F32, "[7,0]", 3, 3) "} \n ";
    const char *path = write_file(strlen(header), header, 11);
    assert_ok(bb_safetensors_open(path, &st, &test_error));
    assert_string_equal(bb_tensor_source_path(st), path);
    assert_true(bb_tensor_source_file_bytes(st) == 8 + strlen(header) + 11);
    assert_int_equal(bb_tensor_source_count(st), 3);
    static const struct {
        const char *name;
        bb_file_dtype dtype;
        int rank;
        int64_t shape[BB_FILE_MAX_RANK];
        uint64_t offset, bytes;
    } expected[] = {
        {"a", BB_FILE_BOOL, 4, {3, 1, 1, 1}, 0, 3}, {"e", BB_FILE_F32, 2, {7, 0}, 3, 0}, {"z", BB_FILE_I64, 0, {0}, 3, 8}};
    for (int i = 0; i < 3; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(st, i);
        assert_ptr_equal(bb_tensor_source_find(st, expected[i].name), t);
        assert_string_equal(t->name, expected[i].name);
        assert_int_equal(t->dtype, expected[i].dtype);
        assert_int_equal(t->rank, expected[i].rank);
        assert_memory_equal(t->shape, expected[i].shape, sizeof t->shape);
        assert_true(t->offset == expected[i].offset && t->bytes == expected[i].bytes);
        uint8_t data[8];
        assert_ok(bb_tensor_source_read(st, t, data, &test_error));
        for (uint64_t k = 0; k < t->bytes; k++) assert_int_equal(data[k], t->offset + k);
    }
    assert_string_equal(bb_tensor_source_metadata(st, "k"), "v");
    assert_string_equal(bb_tensor_source_metadata(st, ""), "");
    assert_null(bb_tensor_source_metadata(st, "dtype"));
    assert_null(bb_tensor_source_find(st, "__metadata__"));
    bb_tensor_source_close(st);
}

static void dtypes_have_their_sizes(void **state) {
    (void)state;
    static const size_t bytes[] = {4, 2, 2, 8, 1, 1, 4, 8, 1};
    static const char *const names[] = {"F32", "F16", "BF16", "F64", "I8", "U8", "I32", "I64", "BOOL"};
    for (int t = BB_FILE_F32; t <= BB_FILE_BOOL; t++) {
        assert_int_equal(bb_file_dtype_bytes((bb_file_dtype)t), bytes[t]);
        assert_string_equal(bb_file_dtype_name((bb_file_dtype)t), names[t]);
    }
}

static void other_types_than_f32_are_refused(void **state) {
    (void)state;
    bb_tensor_source *st;
    const bb_file_tensor *t = NULL;
    const char *header = "{\"w\":" ENTRY(F32, "[2,3]", 0, 24) ",\"h\":" ENTRY("\"F16\"", "[2,3]", 24, 36) "}";
    assert_ok(bb_safetensors_open(write_file(strlen(header), header, 36), &st, &test_error));
    const int64_t shape[] = {2, 3, 1}, other[] = {3, 2};
    assert_ok(bb_tensor_source_require(st, "w", BB_FILE_F32, 2, shape, &t, &test_error));
    assert_ptr_equal(t, bb_tensor_source_find(st, "w"));
    assert_fails(bb_tensor_source_require(st, "w", BB_FILE_F32, 2, other, &t, &test_error), BB_ERR_FORMAT,
                 "'w' at byte 122: expected F32 (3, 2), found F32 (2, 3)");
    assert_fails(bb_tensor_source_require(st, "w", BB_FILE_F32, 3, shape, &t, &test_error), BB_ERR_FORMAT,
                 "expected F32 (2, 3, 1), found F32 (2, 3)");
    assert_fails(bb_tensor_source_require(st, "h", BB_FILE_F32, 2, shape, &t, &test_error), BB_ERR_FORMAT,
                 "'h' at byte 146: expected F32 (2, 3), found F16 (2, 3)");
    assert_fails(bb_tensor_source_require(st, "x", BB_FILE_F32, 2, shape, &t, &test_error), BB_ERR_FORMAT,
                 "tensor 'x' is missing");
    assert_message(test_error, "f.safetensors");
    bb_tensor_source_close(st);
}

/* The golden files were written by an independent program. */
static void files_of_another_program_are_read(void **state) {
    (void)state;
    static const char *const names[] = {"mha", "gqa_clipped", "odd", "no_act_quant", "no_act_quant_clipped"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[512];
        bb_tensor_source *st;
        bb_config config;
        const bb_file_tensor *t;
        (void)snprintf(path, sizeof path, "%s/%s.safetensors", BB_GOLDEN_DIR, names[i]);
        assert_ok(bb_safetensors_open(path, &st, &test_error));
        assert_string_equal(bb_tensor_source_metadata(st, "format"), "bitbyte-golden");
        assert_ok(bb_config_from_json(bb_tensor_source_metadata(st, "config"), path, &config, &test_error));
        assert_ok(
            bb_tensor_source_require(st, "tok_emb.weight", BB_FILE_F32, 2, (int64_t[]){256, config.d_model}, &t, &test_error));
        assert_true(t->bytes == 4 * 256 * (uint64_t)config.d_model);
        bb_tensor_source_close(st);
    }
}

/* ---- Writer ----------------------------------------------------------------------------------------------------------- */

static const float weights[6] = {1, -2.5f, 3, 0, 1e-30f, 7};
static const uint8_t bytes[5] = {9, 8, 7, 6, 5};
static const bb_file_tensor tensors[] = {{.name = "w", .dtype = BB_FILE_F32, .rank = 2, .shape = {2, 3}},
                                         {.name = "none", .dtype = BB_FILE_F16, .rank = 1, .shape = {0}},
                                         {.name = "\xc3\xa9\"\\", .dtype = BB_FILE_U8, .rank = 1, .shape = {5}}};
static const bb_file_metadata metadata[] = {{"format", "x"}, {"config", "{\"a\":1}"}};

static void write_sample(const char *path) {
    bb_tensor_sink *w;
    assert_ok(bb_safetensors_create(path, tensors, 3, metadata, 2, &w, &test_error));
    assert_ok(bb_tensor_sink_write(w, weights, 10, &test_error)); /* in pieces */
    assert_ok(bb_tensor_sink_write(w, (const char *)weights + 10, 14, &test_error));
    assert_ok(bb_tensor_sink_write(w, bytes, 5, &test_error));
    assert_ok(bb_tensor_sink_commit(w, &test_error));
}

static bool holds(const bb_tensor_source *st, const char *name, const void *data, size_t size) {
    uint8_t found[64];
    const bb_file_tensor *t = bb_tensor_source_find(st, name);
    return t && t->bytes == size && size <= sizeof found && bb_tensor_source_read(st, t, found, &test_error) == BB_OK &&
           memcmp(found, data, size) == 0;
}

static void written_bytes_are_as_documented(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    write_sample(path);
    char header[1024];
    /* docs/FORMAT.md's rule, written out: keys in ascending order, keys and values with their NULs */
    static const char text[] = "config\0{\"a\":1}\0format\0x";
    (void)snprintf(header, sizeof header,
                   "{\"__metadata__\":{\"format\":\"x\",\"config\":\"{\\\"a\\\":1}\","
                   "\"tensor_xxh3\":\"{\\\"__metadata__\\\":\\\"%016" PRIx64 "\\\",\\\"w\\\":\\\"%016" PRIx64
                   "\\\",\\\"none\\\":\\\"2d06800538d394c2\\\",\\\"\xc3\xa9\\\\\\\"\\\\\\\\\\\":\\\"%016" PRIx64 "\\\"}\"},"
                   "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                   "\"none\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[24,24]},"
                   "\"\xc3\xa9\\\"\\\\\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[24,29]}}",
                   XXH3_64bits(text, sizeof text), XXH3_64bits(weights, sizeof weights), XXH3_64bits(bytes, sizeof bytes));
    char expected[1024];
    size_t padded = (8 + strlen(header) + 63) / 64 * 64;
    memset(expected, ' ', sizeof expected);
    memset(expected, 0, 8);
    expected[0] = (char)((padded - 8) & 0xff);
    expected[1] = (char)((padded - 8) >> 8);
    memcpy(expected + 8, header, strlen(header)); /* NOLINT(bugprone-not-null-terminated-result): bytes, no string */
    memcpy(expected + padded, weights, 24);
    memcpy(expected + padded + 24, bytes, 5);
    assert_true(scratch_holds(path, expected, padded + 29));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    bb_tensor_source *st;
    write_sample(path);
    assert_ok(bb_safetensors_open(path, &st, &test_error));
    assert_int_equal(bb_tensor_source_count(st), 3);
    for (int i = 0; i < 3; i++) {
        const bb_file_tensor *t = bb_tensor_source_find(st, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->rank, tensors[i].rank);
        assert_memory_equal(t->shape, tensors[i].shape, sizeof t->shape);
    }
    assert_true(holds(st, "w", weights, sizeof weights));
    assert_true(holds(st, tensors[2].name, bytes, sizeof bytes));
    assert_string_equal(bb_tensor_source_metadata(st, "config"), "{\"a\":1}");
    bb_tensor_source_close(st);
}

/* Every byte of the data, and what the metadata say, is covered by a checksum; a file without them is as good as before. */
static void checksums_cover_every_byte(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors"), *bad = scratch_path("bad.safetensors");
    bb_tensor_source *st;
    uint8_t *file;
    size_t size;
    write_sample(path);
    assert_ok(bb_file_read_all(path, 0, &file, &size, &test_error));
    for (size_t from_end = 0; from_end <= 29; from_end++) {
        if (from_end) file[size - from_end] ^= 0x10;
        assert_true(scratch_write(bad, file, size));
        if (from_end) file[size - from_end] ^= 0x10;
        assert_ok(bb_safetensors_open(bad, &st, &test_error));
        assert_true(bb_tensor_source_has_checksums(st));
        assert_ok(bb_tensor_source_check_metadata(st, &test_error));
        for (int i = 0; i < 3; i++) {
            const bb_file_tensor *t = bb_tensor_source_find(st, tensors[i].name);
            bool damaged = (i == 0 && from_end > 5) || (i == 2 && from_end > 0 && from_end <= 5);
            if (damaged)
                assert_fails(bb_tensor_source_scan(st, t, NULL, NULL, &test_error), BB_ERR_FORMAT,
                             "is damaged: expected the checksum");
            else
                assert_ok(bb_tensor_source_scan(st, t, NULL, NULL, &test_error));
        }
        bb_tensor_source_close(st);
    }
    uint8_t *value = memmem(file, size, "\"x\"", 3);
    assert_non_null(value);
    value[1] = 'y';
    assert_true(scratch_write(bad, file, size));
    assert_ok(bb_safetensors_open(bad, &st, &test_error));
    assert_fails(bb_tensor_source_check_metadata(st, &test_error), BB_ERR_FORMAT, "'__metadata__' is damaged");
    bb_tensor_source_close(st);

    uint8_t *key = memmem(file, size, "tensor_xxh3", 11);
    assert_non_null(key);
    key[0] = 'T'; /* another key: then it has none */
    assert_true(scratch_write(bad, file, size));
    assert_ok(bb_safetensors_open(bad, &st, &test_error));
    assert_false(bb_tensor_source_has_checksums(st));
    assert_ok(bb_tensor_source_check_metadata(st, &test_error));
    for (int i = 0; i < 3; i++) assert_ok(bb_tensor_source_scan(st, bb_tensor_source_at(st, i), NULL, NULL, &test_error));
    bb_tensor_source_close(st);
    key[0] = 't';
    memcpy(memmem(file, size, "w\\\":", 4), "v", 1); /* NOLINT(bugprone-not-null-terminated-result): bytes, no string */
    assert_true(scratch_write(bad, file, size));
    assert_fails(bb_safetensors_open(bad, &st, &test_error), BB_ERR_FORMAT, "tensor 'w' has none");
    free(file);

    /* cut off under the reader: an error, no SIGBUS */
    write_sample(path);
    assert_ok(bb_safetensors_open(path, &st, &test_error));
    assert_int_equal(truncate(path, 40), 0);
    assert_fails(bb_tensor_source_scan(st, bb_tensor_source_find(st, "w"), NULL, NULL, &test_error), BB_ERR_DATA,
                 "it shrank while in use");
    bb_tensor_source_close(st);
    assert_int_equal(unlink(bad), 0);
}

static void a_file_may_be_empty(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    bb_tensor_sink *w;
    static const char text[] = "\x78\0\0\0\0\0\0\0{\"__metadata__\":{\"tensor_xxh3\":\"{\\\"__metadata__\\\":"
                               "\\\"2d06800538d394c2\\\"}\"}}"; /* the sum of nothing */
    char expected[128];
    memset(expected, ' ', sizeof expected);
    memcpy(expected, text, sizeof text - 1);
    assert_ok(bb_safetensors_create(path, NULL, 0, NULL, 0, &w, &test_error));
    assert_ok(bb_tensor_sink_commit(w, &test_error));
    assert_true(scratch_holds(path, expected, sizeof expected));
}

static void the_writer_refuses_wrong_tensors(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    static const struct {
        bb_file_tensor pair[2];
        const char *part;
    } cases[] = {
        {{{.name = "a"}, {.name = "a"}}, "'a': the name is reserved or already in use"},
        {{{.name = "__metadata__"}, {.name = "a"}}, "'__metadata__': the name is reserved or already in use"},
        {{{.name = "a", .rank = 5}, {.name = "b"}}, "'a': invalid shape"},
        {{{.name = "a", .rank = 1, .shape = {-1}}, {.name = "b"}}, "'a': invalid shape"},
        {{{.name = "a", .rank = 2, .shape = {INT64_MAX, 8}}, {.name = "b"}}, "'a': invalid shape"},
        {{{.name = "a", .rank = 1, .shape = {INT64_MAX / 8}}, {.name = "b", .rank = 1, .shape = {INT64_MAX / 4}}},
         "'b': invalid shape"},
        {{{.name = "a\xff"}, {.name = "b"}}, "expected a name in UTF-8"},
    };
    bb_tensor_sink *w;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(bb_safetensors_create(path, cases[i].pair, 2, NULL, 0, &w, &test_error), BB_ERR_ARGUMENT);
        assert_null(w);
        assert_message(test_error, path);
        assert_message(test_error, cases[i].part);
    }
    const bb_file_metadata bad = {"config", "\xff"};
    assert_fails(bb_safetensors_create(path, tensors, 1, &bad, 1, &w, &test_error), BB_ERR_ARGUMENT,
                 "metadata 'config': expected UTF-8");
    assert_fails(bb_safetensors_create(scratch_path("absent/f"), tensors, 1, NULL, 0, &w, &test_error), BB_ERR_IO, "absent/f");
    assert_int_equal(scratch_count_entries(scratch_dir), 0);
}

static void the_writer_counts_its_data(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    bb_tensor_sink *w;
    assert_true(scratch_write(path, "old", 3));
    assert_ok(bb_safetensors_create(path, tensors, 1, NULL, 0, &w, &test_error));
    assert_ok(bb_tensor_sink_write(w, weights, 23, &test_error));
    assert_int_equal(bb_tensor_sink_write(w, weights, 2, &test_error), BB_ERR_INTERNAL);
    assert_fails(bb_tensor_sink_commit(w, &test_error), BB_ERR_INTERNAL, "1 bytes are missing");
    assert_true(scratch_holds(path, "old", 3));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void abort_leaves_the_old_file(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    bb_tensor_sink *w;
    assert_true(scratch_write(path, "old", 3));
    assert_ok(bb_safetensors_create(path, tensors, 3, NULL, 0, &w, &test_error));
    assert_ok(bb_tensor_sink_write(w, weights, 24, &test_error));
    assert_int_equal(scratch_count_entries(scratch_dir), 2);
    bb_tensor_sink_abort(w);
    assert_true(scratch_holds(path, "old", 3));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
    bb_tensor_sink_abort(NULL);
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    const char *disk = scratch_path("disk"), *path = scratch_path("disk/f.safetensors");
    if (!scratch_mount_disk(disk, 64)) skip();
    write_sample(path);
    bb_tensor_sink *w = NULL;
    bb_file_tensor large = {.name = "large", .dtype = BB_FILE_U8, .rank = 1, .shape = {200000}};
    char piece[10000] = {0};
    bb_status status = bb_safetensors_create(path, &large, 1, NULL, 0, &w, &test_error);
    for (int i = 0; i < 20 && status == BB_OK; i++) status = bb_tensor_sink_write(w, piece, sizeof piece, &test_error);
    bb_tensor_sink_abort(w);
    int entries = scratch_count_entries(disk);
    bb_tensor_source *st = NULL;
    bb_status old_status = bb_safetensors_open(path, &st, NULL);
    bool same = st && bb_tensor_source_count(st) == 3 && holds(st, "w", weights, sizeof weights);
    bb_tensor_source_close(st);
    assert_true(scratch_unmount_disk(disk));
    assert_int_equal(status, BB_ERR_IO);
    assert_message(test_error, "f.safetensors: cannot write: No space left on device");
    assert_int_equal(entries, 1);
    assert_int_equal(old_status, BB_OK);
    assert_true(same);
}

/* jansson without memory, at every point: an error, nothing lost (ASan sees to that), nothing left on the disk. */
static void a_lack_of_memory_leaves_nothing(void **state) {
    (void)state;
    const char *path = scratch_path("f.safetensors");
    json_set_alloc_funcs(limited_malloc, free);
    int failures = 0;
    for (int limit = 0;; limit++) {
        bb_tensor_sink *w;
        allocations_left = limit;
        bb_status status = bb_safetensors_create(path, tensors, 3, metadata, 2, &w, &test_error);
        bb_tensor_sink_abort(w);
        assert_int_equal(scratch_count_entries(scratch_dir), 0);
        if (status == BB_OK) break;
        assert_null(w);
        failures++;
    }
    assert_true(failures > 10);
    json_set_alloc_funcs(malloc, free);
    write_sample(path);
    json_set_alloc_funcs(limited_malloc, free);
    for (int limit = 0;; limit++) {
        bb_tensor_source *st;
        allocations_left = limit;
        bb_status status = bb_safetensors_open(path, &st, &test_error);
        bb_tensor_source_close(st);
        if (status == BB_OK) break;
        assert_null(st);
        assert_message(test_error, path);
    }
    json_set_alloc_funcs(malloc, free);
}

#define file_test(f) cmocka_unit_test_setup_teardown(f, scratch_create, scratch_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        file_test(other_files_are_refused),
        file_test(header_lengths_are_checked),
        file_test(malformed_headers_are_refused),
        file_test(every_truncation_is_refused),
        file_test(good_files_are_read),
        file_test(other_types_than_f32_are_refused),
        file_test(written_bytes_are_as_documented),
        file_test(what_is_written_is_read_back),
        file_test(checksums_cover_every_byte),
        file_test(a_file_may_be_empty),
        file_test(the_writer_refuses_wrong_tensors),
        file_test(the_writer_counts_its_data),
        file_test(abort_leaves_the_old_file),
        file_test(a_full_disk_leaves_the_old_file),
        file_test(a_lack_of_memory_leaves_nothing),
        cmocka_unit_test(dtypes_have_their_sizes),
        cmocka_unit_test(files_of_another_program_are_read),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
