// SPDX-License-Identifier: MIT
/* Reading texts: encodings, compressions, and input that is not text. */
#include "data/input_stream.h"
#include "pack_files.h"

static bb_error err;

/* Reads the file's text with reads of `capacity` bytes. */
static void expect_read(const char *name, size_t capacity, const void *wanted, size_t size) {
    static uint8_t bytes[1 << 20];
    bb_input_stream stream;
    size_t used = 0, n = 1;
    if (bb_input_stream_open(at(name), NULL, &stream, &err) != BB_OK) fail_msg("%s", err.message);
    for (; n > 0; used += n)
        if (bb_input_stream_read(&stream, bytes + used, capacity, &n, &err) != BB_OK) fail_msg("%s", err.message);
    bb_input_stream_close(&stream);
    assert_int_equal(used, size);
    assert_memory_equal(bytes, wanted, size);
}

static void expect_refused(const void *bytes, size_t size, const char *part) {
    char *text;
    size_t n;
    put_bytes("odd", bytes, size);
    assert_int_equal(bb_read_text(at("odd"), NULL, &text, &n, &err), BB_ERR_FORMAT);
    assert_null(text);
    if (!strstr(err.message, "odd") || !strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
}

static size_t put_unit(uint8_t *out, unsigned unit, bool little) {
    out[0] = (uint8_t)(little ? unit & 0xff : unit >> 8);
    out[1] = (uint8_t)(little ? unit >> 8 : unit & 0xff);
    return 2;
}

static void utf16_becomes_utf8(void **state) {
    (void)state;
    /* long enough for several buffers, with pairs at their ends; a half alone late and at the very end */
    enum { CHARACTERS = 90001 };
    static uint8_t utf16[4 * CHARACTERS + 16], utf8[4 * CHARACTERS + 16], packed[8 * CHARACTERS];
    for (int little = 0; little < 2; little++) {
        size_t n = put_unit(utf16, 0xfeff, little), wanted = 0;
        for (int i = 0; i < CHARACTERS; i++) {
            if (i % 3 == 0) {
                n += put_unit(utf16 + n, 0xd83d, little);
                n += put_unit(utf16 + n, 0xde00, little);
                wanted += (size_t)sprintf((char *)utf8 + wanted, "\xf0\x9f\x98\x80");
            } else {
                n += put_unit(utf16 + n, i % 3 == 1 ? 'a' : i < 45000 ? 0xe9 : 0x20ac, little);
                wanted += (size_t)sprintf((char *)utf8 + wanted, "%s",
                                          i % 3 == 1  ? "a"
                                          : i < 45000 ? "\xc3\xa9"
                                                      : "\xe2\x82\xac");
            }
        }
        n += put_unit(utf16 + n, 0xdc00, little);
        n += put_unit(utf16 + n, 0xd800, little);
        wanted += (size_t)sprintf((char *)utf8 + wanted, "\xef\xbf\xbd\xef\xbf\xbd");
        put_bytes("utf16", utf16, n);
        for (size_t room = 1; room < 6; room++) expect_read("utf16", room, utf8, wanted);
        expect_read("utf16", 1000, utf8, wanted);
        put_bytes("utf16.xz", packed, xz_stream(packed, 0, sizeof packed, utf16, n));
        expect_read("utf16.xz", 1000, utf8, wanted);
        expect_refused(utf16, n - 1, "in the middle of a character");
    }
}

static void plain_bytes_stay_as_they_are(void **state) {
    (void)state;
    static uint8_t noise[5000];
    for (size_t i = 0; i < sizeof noise; i += 8) {
        uint64_t v = bb_rng_u64(7, BB_STREAM_TEST, i);
        memcpy(noise + i, &v, 8);
    }
    const char *begins[] = {"\xff\xfe", "\xfe\xff", "BZh9 is not bzip2", "GGUF is a format", "{\"a\": 1}", "\x1f\x8b", "", "P"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        memcpy(noise, begins[i], strlen(begins[i]));
        put_bytes("plain", noise, sizeof noise);
        expect_read("plain", 999, noise, sizeof noise);
        put("plain", begins[i]);
        if (i >= 2) expect_read("plain", 999, begins[i], strlen(begins[i]));
    }
}

static void other_content_is_refused(void **state) {
    (void)state;
    static uint8_t tar[1024] = "a.txt";
    memcpy(tar + 257, "ustar", 5);
    expect_refused("\x40\0\0\0\0\0\0\0{\"w\":{}}", 16, "a safetensors file");
    expect_refused("GGUF\3\0\0\0\0\0\0\0", 12, "a GGUF file");
    expect_refused("PK\3\4rest", 8, "a zip archive: unpack it first");
    expect_refused("\xff\xfe\0\0a\0\0\0", 8, "UTF-32");
    expect_refused(tar, sizeof tar, "a tar archive");
    uint8_t packed[4096];
    expect_refused(packed, gzip_member(packed, 0, sizeof packed, tar, sizeof tar), "a tar archive");
}

/* A file that is cut short while it is read is not taken for a shorter one. */
static void input_that_shrinks_is_an_error(void **state) {
    (void)state;
    enum { SIZE = 3 * BB_INPUT_STREAM_BYTES };
    static uint8_t bytes[SIZE];
    bb_input_stream stream;
    size_t n = 0;
    put_bytes("shrinks", bytes, SIZE);
    assert_int_equal(bb_input_stream_open(at("shrinks"), NULL, &stream, &err), BB_OK);
    assert_int_equal(bb_input_stream_read(&stream, bytes, SIZE, &n, &err), BB_OK);
    assert_int_equal(truncate(at("shrinks"), BB_INPUT_STREAM_BYTES + 10), 0);
    bb_status status;
    do status = bb_input_stream_read(&stream, bytes, SIZE, &n, &err);
    while (status == BB_OK && n > 0);
    assert_int_equal(status, BB_ERR_IO);
    assert_non_null(strstr(err.message, "expected 786432 bytes, found 262154"));
    bb_input_stream_close(&stream);
}

static void read_text_reads_all(void **state) {
    (void)state;
    char *text;
    size_t size;
    int ends[2], kept = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    assert_true(dup2(ends[0], STDIN_FILENO) >= 0);
    bb_status status = bb_read_text("-", NULL, &text, &size, &err);
    dup2(kept, STDIN_FILENO);
    close(kept);
    close(ends[0]);
    assert_int_equal(status, BB_OK);
    assert_string_equal(text, "from a pipe");
    assert_int_equal(size, 11);
    bb_string_free(text);
    put("empty", "");
    assert_int_equal(bb_read_text(at("empty"), NULL, &text, &size, &err), BB_OK);
    assert_string_equal(text, "");
    assert_int_equal(size, 0);
    bb_string_free(text);
    assert_int_equal(bb_read_text(at("absent"), NULL, &text, &size, &err), BB_ERR_IO);
    assert_non_null(strstr(err.message, "absent: cannot open: No such file"));
    assert_int_equal(bb_read_text(scratch_dir, NULL, &text, &size, &err), BB_ERR_IO);
}

int main(void) {
#define TEST(name) cmocka_unit_test_teardown(name, empty_scratch)
    const struct CMUnitTest tests[] = {TEST(utf16_becomes_utf8), TEST(plain_bytes_stay_as_they_are),
                                       TEST(other_content_is_refused), TEST(input_that_shrinks_is_an_error),
                                       TEST(read_text_reads_all)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
