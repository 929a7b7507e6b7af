// SPDX-License-Identifier: MIT
/* GGUF: damaged and hostile headers are refused with a message, and types are read like llama.cpp reads them. */
#include "support.h"

#include "modelfile/dequantize.h"
#include "modelfile/gguf.h"
#include "modelfile/gguf_names.h"
#include "modelfile/quantize.h"

/* ---- headers, built by hand -------------------------------------------------------------------------------------------- */

typedef struct file {
    uint8_t bytes[8192];
    size_t size;
} file;

static void put(file *f, const void *data, size_t n) {
    assert_true(f->size + n <= sizeof f->bytes);
    memcpy(f->bytes + f->size, data, n);
    f->size += n;
}

static void put_u32(file *f, uint32_t v) { put(f, &v, sizeof v); }
static void put_u64(file *f, uint64_t v) { put(f, &v, sizeof v); }

static void put_string(file *f, const char *text) {
    put_u64(f, strlen(text));
    put(f, text, strlen(text));
}

static void put_header(file *f, uint64_t tensors, uint64_t pairs) {
    *f = (file){.size = 0};
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put_u64(f, tensors);
    put_u64(f, pairs);
}

static void put_key(file *f, const char *key, uint32_t type) {
    put_string(f, key);
    put_u32(f, type);
}

static void put_array(file *f, uint32_t type, uint64_t count) {
    put_u32(f, type);
    put_u64(f, count);
}

/* A tensor of one dimension. */
static void put_tensor(file *f, const char *name, uint64_t n, uint32_t type, uint64_t offset) {
    put_string(f, name);
    put_u32(f, 1);
    put_u64(f, n);
    put_u32(f, type);
    put_u64(f, offset);
}

static void put_data(file *f, size_t n) {
    static const uint8_t zeros[1024];
    put(f, zeros, (32 - f->size % 32) % 32);
    put(f, zeros, n);
}

static bb_status open_file(const file *f, bb_tensor_source **out) {
    bb_input input;
    assert_ok(bb_input_open_memory("x.gguf", f->bytes, f->size, &input, &test_error));
    return bb_tensor_source_open_input(&input, out, &test_error);
}

static void refused(const file *f, bb_status code, const char *part) {
    bb_tensor_source *s;
    assert_fails(open_file(f, &s), code, part);
    assert_message(test_error, "x.gguf");
    assert_null(s);
}

/* Two keys, two tensors. */
static void put_good(file *f) {
    put_header(f, 2, 4);
    put_key(f, "general.architecture", BB_GGUF_STRING);
    put_string(f, "llama");
    put_key(f, "nested", BB_GGUF_ARRAY);
    put_array(f, BB_GGUF_ARRAY, 1);
    put_array(f, BB_GGUF_STRING, 2);
    put_string(f, "a");
    put_string(f, "");
    put_key(f, "minus", BB_GGUF_I16);
    put(f, "\xfe\xff", 2);
    put_key(f, "yes", BB_GGUF_BOOL);
    put(f, "\1", 1);
    put_tensor(f, "second", 3, 0, 32);
    put_tensor(f, "first", 4, 1, 0);
    put_data(f, 44);
}

static void valid_header_is_read(void **state) {
    (void)state;
    file f;
    bb_tensor_source *s;
    put_good(&f);
    assert_ok(open_file(&f, &s));
    assert_string_equal(bb_tensor_source_metadata(s, "general.architecture"), "llama");
    assert_string_equal(bb_tensor_source_metadata(s, "minus"), "-2");
    assert_string_equal(bb_tensor_source_metadata(s, "yes"), "true");
    assert_null(bb_tensor_source_metadata(s, "nested"));
    assert_null(bb_tensor_source_metadata(s, "no"));
    assert_int_equal(bb_tensor_source_count(s), 2);
    assert_string_equal(bb_tensor_source_at(s, 0)->name, "first");
    assert_int_equal(bb_tensor_source_find(s, "second")->bytes, 12);
    bb_tensor_source_close(s);
    /* every shorter file is refused */
    for (size_t size = f.size; size-- > 0;) {
        file cut = f;
        cut.size = size;
        test_error.message[0] = 0;
        assert_int_not_equal(open_file(&cut, &s), BB_OK);
        assert_message(test_error, "x.gguf");
    }
    /* and no changed byte does harm: it is refused or gives tensors that lie in the file */
    for (size_t at = 4; at < f.size; at++)
        for (int bit = 0; bit < 8; bit++) {
            file changed = f;
            changed.bytes[at] ^= (uint8_t)(1 << bit);
            if (open_file(&changed, &s) != BB_OK) continue;
            for (int i = 0; i < bb_tensor_source_count(s); i++)
                assert_ok(bb_tensor_source_scan(s, bb_tensor_source_at(s, i), NULL, NULL, &test_error));
            bb_tensor_source_close(s);
        }
}

static void hostile_metadata_is_refused(void **state) {
    (void)state;
    file f;
    put_header(&f, 0, 0);
    f.bytes[4] = 1;
    refused(&f, BB_ERR_UNSUPPORTED, "version 1 of GGUF");
    put_header(&f, 0, 0);
    memcpy(f.bytes + 4, "\0\0\0\3", 4);
    refused(&f, BB_ERR_UNSUPPORTED, "big-endian");
    put_header(&f, 0, UINT64_MAX);
    refused(&f, BB_ERR_FORMAT, "18446744073709551615 keys do not fit");
    put_header(&f, 0, UINT64_MAX / 64 + 1); /* times the size of an entry: 0 */
    refused(&f, BB_ERR_FORMAT, "keys do not fit");
    put_header(&f, UINT64_MAX, 0);
    refused(&f, BB_ERR_FORMAT, "18446744073709551615 tensors do not fit");
    put_header(&f, 0, 1);
    put_u64(&f, UINT64_MAX); /* a key's length, which plus one is 0 */
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "expected a string of 1 to 65535 bytes");
    put_header(&f, 0, 1);
    put_key(&f, "", BB_GGUF_U8);
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "expected a string of 1 to 65535 bytes, found 0");
    put_header(&f, 0, 1);
    put_key(&f, "text", BB_GGUF_STRING);
    put_u64(&f, UINT64_MAX);
    refused(&f, BB_ERR_FORMAT, "text: expected a string of 0 to");
    put_header(&f, 0, 1);
    put_key(&f, "text", BB_GGUF_STRING);
    put_u64(&f, 1000);
    refused(&f, BB_ERR_FORMAT, "text: expected 1000 more bytes, found 0");
    put_header(&f, 0, 1);
    put_key(&f, "text", BB_GGUF_STRING);
    put_u64(&f, 3);
    put(&f, "a\0b", 3);
    refused(&f, BB_ERR_FORMAT, "a string contains a zero byte");
    put_header(&f, 0, 1);
    put_key(&f, "what", 13);
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "'what': expected a value type from 0 to 12, found 13");
    put_header(&f, 0, 1);
    put_key(&f, "yes", BB_GGUF_BOOL);
    put(&f, "\2", 1);
    refused(&f, BB_ERR_FORMAT, "'yes': expected a boolean");
    static const uint32_t types[] = {BB_GGUF_U8, BB_GGUF_F64, BB_GGUF_STRING, BB_GGUF_ARRAY};
    static const uint64_t counts[] = {UINT64_MAX, UINT64_MAX / 8 + 2, UINT64_MAX / 12 + 2, 1000};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            put_header(&f, 0, 1);
            put_key(&f, "array", BB_GGUF_ARRAY);
            put_array(&f, types[i], counts[k]);
            put_data(&f, 64);
            refused(&f, BB_ERR_FORMAT, "'array': an array of");
        }
    put_header(&f, 0, 1);
    put_key(&f, "array", BB_GGUF_ARRAY);
    put_array(&f, 99, 0);
    refused(&f, BB_ERR_FORMAT, "'array': expected a value type");
    put_header(&f, 0, 1);
    put_key(&f, "array", BB_GGUF_ARRAY);
    put_array(&f, BB_GGUF_STRING, 1);
    put_u64(&f, UINT64_MAX - 7);
    refused(&f, BB_ERR_FORMAT, "array: expected 18446744073709551608 more bytes");
    put_header(&f, 0, 1);
    put_key(&f, "deep", BB_GGUF_ARRAY);
    for (int i = 0; i < 500; i++) put_array(&f, BB_GGUF_ARRAY, 1);
    refused(&f, BB_ERR_FORMAT, "'deep': arrays are nested");
    put_header(&f, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_key(&f, "twice", BB_GGUF_U32);
        put_u32(&f, 1);
    }
    refused(&f, BB_ERR_FORMAT, "key 'twice': duplicate name");
    static const uint32_t alignments[] = {0, 1, 4, 24, 1u << 17, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        put_header(&f, 0, 1);
        put_key(&f, "general.alignment", BB_GGUF_U32);
        put_u32(&f, alignments[i]);
        refused(&f, BB_ERR_FORMAT, "general.alignment: expected a 32-bit power of two");
    }
    put_header(&f, 0, 1);
    put_key(&f, "general.alignment", BB_GGUF_STRING);
    put_string(&f, "32");
    refused(&f, BB_ERR_FORMAT, "general.alignment");
}

static void hostile_tensors_are_refused(void **state) {
    (void)state;
    static const struct {
        uint64_t n;
        uint32_t type;
        uint64_t offset;
        bb_status code;
        const char *part;
    } cases[] = {{0, 0, 0, BB_ERR_FORMAT, "expected a size of at least 1, found 0"},
                 {UINT64_MAX, 0, 0, BB_ERR_FORMAT, "expected a size of at least 1, found 18446744073709551615"},
                 {1ull << 62, 0, 0, BB_ERR_FORMAT, "overflows"},
                 {INT64_MAX, 0, 0, BB_ERR_FORMAT, "overflows"},
                 {1ull << 40, 0, 0, BB_ERR_FORMAT, "truncated?"},
                 {4, 0, 33, BB_ERR_FORMAT, "a multiple of 32, found 33"},
                 {4, 0, 1024, BB_ERR_FORMAT, "truncated?"},
                 {4, 0, UINT64_MAX - 31, BB_ERR_FORMAT, "truncated?"},
                 {128, 35, 0, BB_ERR_FORMAT, "a multiple of 256 elements for TQ2_0"},
                 {96, 42, 0, BB_ERR_FORMAT, "a multiple of 64 elements for Q2_0"},
                 {4, 12, 0, BB_ERR_UNSUPPORTED, "type 12 of GGUF"},
                 {4, UINT32_MAX, 0, BB_ERR_UNSUPPORTED, "type 4294967295 of GGUF"}};
    file f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_header(&f, 1, 0);
        put_tensor(&f, "w", cases[i].n, cases[i].type, cases[i].offset);
        put_data(&f, 64);
        refused(&f, cases[i].code, cases[i].part);
        assert_message(test_error, "'w'");
    }
    static const uint32_t ranks[] = {0, 5, UINT32_MAX};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        put_header(&f, 1, 0);
        put_string(&f, "w");
        put_u32(&f, ranks[i]);
        put_data(&f, 64);
        refused(&f, BB_ERR_FORMAT, "expected 1 to 4 dimensions");
    }
    put_header(&f, 1, 0);
    put_string(&f, "w"); /* 2^32 in each dimension: 2^128 elements, 0 in 64 bits */
    put_u32(&f, 4);
    for (int i = 0; i < 4; i++) put_u64(&f, 1ull << 32);
    put_u32(&f, 0);
    put_u64(&f, 0);
    refused(&f, BB_ERR_FORMAT, "overflows");
    put_header(&f, 2, 0);
    put_tensor(&f, "w", 4, 0, 0);
    put_tensor(&f, "w", 4, 0, 32);
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "duplicate name");
    put_header(&f, 2, 0);
    put_tensor(&f, "b", 9, 0, 0);
    put_tensor(&f, "a", 4, 0, 32);
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "'a' at 32 of the data overlaps 'b', which ends at 36");
}

/* Files of the shape that was found to break other readers. */
static void known_attacks_are_refused(void **state) {
    (void)state;
    file f;
    /* CVE-2024-21802: more dimensions than the reader has room for, each with its size. */
    put_header(&f, 1, 0);
    put_string(&f, "w");
    put_u32(&f, 64);
    for (int i = 0; i < 64; i++) put_u64(&f, 0x4141414141414141);
    put_u32(&f, 0);
    put_u64(&f, 0);
    put_data(&f, 64);
    refused(&f, BB_ERR_FORMAT, "'w': expected 1 to 4 dimensions, found 64");
    /* CVE-2026-33298: (size - 1) times the stride is 2^64, so the bytes that are needed seem few. */
    static const struct {
        uint64_t row, rows;
        uint32_t type;
    } shapes[] = {{1ull << 20, (1ull << 42) + 1, 0},  /* rows of 2^22 bytes */
                  {1ull << 40, (1ull << 22) + 1, 0},  /* rows of 2^42 bytes */
                  {1ull << 33, (1ull << 33) + 1, 35}, /* elements wrap, blocks of TQ2_0 */
                  {1ull << 35, (1ull << 27) + 1, 8}}; /* Q8_0 */
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        put_header(&f, 1, 0);
        put_string(&f, "w");
        put_u32(&f, 2);
        put_u64(&f, shapes[i].row);
        put_u64(&f, shapes[i].rows);
        put_u32(&f, shapes[i].type);
        put_u64(&f, 0);
        put_data(&f, 64);
        refused(&f, BB_ERR_FORMAT, "'w'");
    }
    /* CVE-2026-27940: every tensor's bytes fit into 64 bits, but the sum of all does not. */
    put_header(&f, 5, 0);
    for (int i = 0; i < 5; i++) {
        const char name[2] = {(char)('a' + i), 0};
        put_tensor(&f, name, 1ull << 60, 0, (uint64_t)i << 62);
    }
    put_data(&f, 1024);
    refused(&f, BB_ERR_FORMAT, "truncated?");
    /* and counts of which the memory for a table wraps */
    static const uint64_t counts[] = {UINT64_MAX / 368, UINT64_MAX / 368 + 1, (1ull << 63) / 184 + 1, 1ull << 56, 1ull << 31};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        put_header(&f, counts[i], 0);
        put_tensor(&f, "w", 4, 0, 0);
        put_data(&f, 64);
        refused(&f, BB_ERR_FORMAT, "tensors do not fit into the remaining");
    }
}

/* ---- types ------------------------------------------------------------------------------------------------------------- */

static void blocks_of_each_type_decode(void **state) {
    (void)state;
    static float out[256];
    uint8_t q8[34] = {0x00, 0x38, 127, 0x81}; /* 0.5; 127, -127, 0 ... */
    bb_dequantize(BB_FILE_Q8_0, q8, 32, out);
    assert_true(fabsf(out[0] - 63.5f) < 1e-6f && fabsf(out[1] + 63.5f) < 1e-6f && fabsf(out[31]) < 1e-6f);
    uint8_t tq2[66] = {0};
    tq2[64 + 1] = 0x3c;   /* 1 */
    tq2[32 + 5] = 2 << 4; /* element 128 + 2 * 32 + 5 is 1, all others in this byte -1 */
    tq2[7] = 1 << 2;      /* element 32 + 7 is 0 */
    tq2[0] = 3;
    bb_dequantize(BB_FILE_TQ2_0, tq2, 256, out);
    for (int i = 1; i < 256; i++) assert_true(fabsf(out[i] - (i == 128 + 64 + 5 ? 1.0f : i == 32 + 7 ? 0.0f : -1.0f)) < 1e-6f);
    assert_true(isnan(out[0]));    /* no code */
    uint8_t q2[18] = {0x00, 0x38}; /* 0.5 */
    q2[2 + 9] = 2 << 4;            /* element 36 + 2 is 1 */
    q2[2 + 15] = 3 << 6 | 1 << 2;  /* the last is 2, element 61 is 0 */
    bb_dequantize(BB_FILE_Q2_0, q2, 64, out);
    for (int i = 0; i < 64; i++)
        assert_true(fabsf(out[i] - (i == 38 ? 0.5f : i == 61 ? 0.0f : i == 63 ? 1.0f : -0.5f)) < 1e-6f);
    /* every element of TQ1_0 alone */
    for (int e = 0; e < 256; e++) {
        static const int power[5] = {81, 27, 9, 3, 1};
        int byte = e < 160 ? e % 32 : e < 240 ? 32 + (e - 160) % 16 : 48 + (e - 240) % 4;
        int digit = e < 160 ? e / 32 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        uint8_t tq1[54] = {0};
        tq1[53] = 0x3c;
        tq1[byte] = (uint8_t)((2 * power[digit] * 256 + 242) / 243);
        bb_dequantize(BB_FILE_TQ1_0, tq1, 256, out);
        for (int i = 0; i < 256; i++) assert_true(fabsf(out[i] - (i == e ? 1.0f : -1.0f)) < 1e-6f);
    }
}

static void each_byte_has_its_token(void **state) {
    (void)state;
    assert_string_equal(bb_gguf_byte_token('a').text, "a");
    assert_string_equal(bb_gguf_byte_token(0).text, "\xc4\x80");    /* U+0100 */
    assert_string_equal(bb_gguf_byte_token(' ').text, "\xc4\xa0");  /* U+0120 */
    assert_string_equal(bb_gguf_byte_token(0xad).text, "\xc5\x83"); /* U+0143 */
    assert_string_equal(bb_gguf_byte_token(0xff).text, "\xc3\xbf");
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < a; b++) assert_string_not_equal(bb_gguf_byte_token(a).text, bb_gguf_byte_token(b).text);
}

static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00u; h++) { /* each value of f16, and the middle between it and the next */
        float a = bb_f32_from_f16((uint16_t)h), b = h == 0x7bffu ? 65536.0f : bb_f32_from_f16((uint16_t)(h + 1));
        assert_int_equal(bb_f16_from_f32(a), h);
        assert_int_equal(bb_f16_from_f32(-a), h | 0x8000u);
        assert_int_equal(bb_f16_from_f32((a + b) / 2), h + (h & 1)); /* half to even */
        assert_int_equal(bb_f16_from_f32(nextafterf((a + b) / 2, 0)), h);
        assert_int_equal(bb_f16_from_f32(nextafterf((a + b) / 2, 1e9f)), h + 1);
    }
    assert_int_equal(bb_f16_from_f32(INFINITY), 0x7c00);
    assert_true(isnan(bb_f32_from_f16(bb_f16_from_f32(NAN))));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_header_is_read),        cmocka_unit_test(hostile_metadata_is_refused),
        cmocka_unit_test(hostile_tensors_are_refused), cmocka_unit_test(known_attacks_are_refused),
        cmocka_unit_test(blocks_of_each_type_decode),  cmocka_unit_test(each_byte_has_its_token),
        cmocka_unit_test(f16_rounds_to_nearest_even)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
