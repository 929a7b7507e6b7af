// SPDX-License-Identifier: MIT
/* The packer: which inputs it accepts, how it transforms their bytes, and what it reports about unreadable ones. */
#include "data/packer_job.h"
#include "pack_files.h"

#define RUN(run, out, ...)                                                                                                     \
    const char *run##_inputs[] = {__VA_ARGS__};                                                                                \
    pack_run run = new_run(run##_inputs, (int)(sizeof run##_inputs / sizeof *run##_inputs), out)

static uint8_t *noise(size_t size, uint64_t index) {
    uint8_t *bytes = malloc(size + 8);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t v = bb_rng_u64(1, BB_STREAM_TEST, index * 1000003 + i);
        memcpy(bytes + i, &v, 8);
    }
    return bytes;
}

/* ---- Which files ------------------------------------------------------------------------------------------------------ */

static void make_tree(void) {
    bb_file_make_dirs(at("tree/b/deep"), NULL);
    bb_file_make_dirs(at("tree/.git"), NULL);
    put("tree/b.txt", "2");
    put("tree/b/z.txt", "4");
    put("tree/b/deep/a.md", "3");
    put("tree/a.txt", "1");
    put("tree/c.TXT", "5");
    put("tree/d.bin", "no");
    put("tree/README", "no");
    put("tree/.hidden.txt", "no");
    put("tree/.git/x.txt", "no");
}

static void a_folder_is_sorted_by_path(void **state) {
    (void)state;
    make_tree();
    RUN(run, "out", at("tree"));
    run.options.sep_byte = '|';
    pack_ok(&run);
    /* "b.txt" < "b/deep/a.md" < "b/z.txt": '.' comes before '/'. */
    expect_text("out", "1|2|3|4|5");
    assert_int_equal(run.result.files, 5);
    assert_int_equal(run.result.documents, 5);
    assert_int_equal(run.result.bytes, 9);
    assert_int_equal(run.result.skipped, 0);
    assert_int_equal(run.last_files_done, 5);
    assert_int_equal(run.last_files_total, 5);
}

static void extensions_choose_files(void **state) {
    (void)state;
    make_tree();
    const char *md[] = {".md"}, *all[] = {"*"};
    RUN(only, "only", at("tree"));
    only.options.exts = md;
    only.options.ext_count = 1;
    pack_ok(&only);
    expect_text("only", "3");
    RUN(every, "every", at("tree"));
    every.options.exts = all;
    every.options.ext_count = 1;
    every.options.sep_byte = -1;
    pack_ok(&every);
    expect_text("every", "no12345no");                             /* README, a, b, …, d.bin */
    RUN(given, "given", at("tree/d.bin"), at("tree/.hidden.txt")); /* what is given by name is taken as it is */
    pack_ok(&given);
    expect_packed("given", "no\0no", 5);
    const char *none[] = {"xyz"};
    RUN(nothing, "nothing", at("tree"));
    nothing.options.exts = none;
    nothing.options.ext_count = 1;
    pack_fails(&nothing, BB_ERR_DATA, "no file with one of the 1 given extensions (exts); found: ");
    assert_int_equal(access(at("nothing"), F_OK), -1);
}

/* What folders hold besides is counted by extension. */
static void files_left_out_are_counted(void **state) {
    (void)state;
    make_tree();
    put("tree/e.BIN", "no");
    put("tree/f.bin.gz", "no");
    put("tree/g.a_very_long_extension", "no");
    RUN(run, "out", at("tree"));
    pack_ok(&run);
    assert_int_equal(run.result.left_out, 5);
    assert_int_equal(run.result.skipped, 0);
    assert_string_equal(run.note_text,
                        "5 files of the folders are skipped because of their extension (exts): 3 .bin, 1 without an "
                        "extension, 1 other\n");
    uint8_t *manifest;
    size_t size;
    assert_int_equal(bb_file_read_all(at("out/manifest.json"), 0, &manifest, &size, NULL), BB_OK);
    assert_non_null(strstr((char *)manifest, "\"left_out_count\": 5"));
    assert_non_null(strstr((char *)manifest, "\"left_out\": {\"bin\": 3, \"\": 1, \"other\": 1}"));
    free(manifest);
    const char *all[] = {"all"};
    RUN(every, "every", at("tree"));
    every.options.exts = all;
    every.options.ext_count = 1;
    pack_ok(&every);
    assert_int_equal(every.result.files, 10);
    assert_int_equal(every.result.left_out, 0);
    assert_string_equal(every.note_text, "");
    for (int i = 0; i < 100; i++) { /* more kinds than are told apart */
        char name[32];
        snprintf(name, sizeof name, "tree/x.%d", i);
        put(name, "no");
    }
    RUN(many, "many", at("tree"));
    pack_ok(&many);
    assert_int_equal(many.result.left_out, 105);
    assert_non_null(strstr(many.note_text, "105 files"));
}

static void inputs_keep_their_order_and_come_once(void **state) {
    (void)state;
    make_tree();
    assert_int_equal(symlink("..", at("tree/b/loop")), 0);
    assert_int_equal(symlink(".", at("tree/self")), 0);
    assert_int_equal(symlink("a.txt", at("tree/again.txt")), 0);
    RUN(run, "out", at("tree/c.TXT"), at("tree"), at("tree/b"), at("tree/a.txt"));
    run.options.sep_byte = -1;
    pack_ok(&run);
    expect_text("out", "51234");
    assert_int_equal(run.result.files, 5);
}

static void out_dir_is_no_input(void **state) {
    (void)state;
    make_tree();
    RUN(below, "tree/packed", at("tree"));
    below.options.sep_byte = -1;
    pack_ok(&below);
    expect_text("tree/packed", "12345");
    put("tree/packed/note.txt", "no");
    const char *all[] = {"*"};
    below.options.exts = all;
    below.options.ext_count = 1;
    below.options.overwrite = true;
    pack_ok(&below);
    expect_text("tree/packed", "no12345no");
    /* The folder itself given as input: only what a pack leaves there is left out. */
    RUN(same, "tree/packed", at("tree/packed"));
    same.options.exts = all;
    same.options.ext_count = 1;
    same.options.overwrite = true;
    pack_ok(&same);
    expect_text("tree/packed", "no");
}

static void separators_stand_between_documents(void **state) {
    (void)state;
    put("a", "A");
    put("empty", "");
    put("b", "B");
    struct {
        int sep;
        const char *wanted;
        size_t size;
    } cases[] = {{0, "A\0B", 3},
                 {-1, "AB", 2},
                 {255,
                  "A\xff"
                  "B",
                  3},
                 {'\n', "A\nB", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RUN(run, "out", at("empty"), at("a"), at("empty"), at("b"), at("empty"));
        run.options.sep_byte = cases[i].sep;
        run.options.overwrite = true;
        pack_ok(&run);
        expect_packed("out", cases[i].wanted, cases[i].size);
        assert_int_equal(run.result.documents, 2);
    }
}

/* ---- Compression ------------------------------------------------------------------------------------------------------ */

static void content_decides_on_decompression(void **state) {
    (void)state;
    /* Larger than every buffer on the way, of bytes that compress (a zero after each) and bytes that do not. */
    enum { SIZE = 3000001 };
    uint8_t *bytes = noise(SIZE, 1), *packed = malloc(SIZE * 2);
    assert_non_null(packed);
    for (size_t i = SIZE / 2; i < SIZE; i++) bytes[i] = (uint8_t)(i >> 12);
    size_t (*const adds[])(uint8_t *, size_t, size_t, const void *, size_t) = {gzip_member, zstd_frame, xz_stream,
                                                                               bzip2_stream};
    for (int kind = 0; kind < 4; kind++) {
        size_t (*add)(uint8_t *, size_t, size_t, const void *, size_t) = adds[kind];
        size_t used = add(packed, 0, SIZE * 2, bytes, 1000);
        used = add(packed, used, SIZE * 2, "", 0); /* an empty member in the middle */
        used = add(packed, used, SIZE * 2, bytes + 1000, SIZE - 1000);
        if (kind == 0) {
            memset(packed + used, 0, 5000); /* padding, as on tapes */
            used += 5000;
        }
        put_bytes("odd.name", packed, used);
        RUN(run, "out", at("odd.name"));
        run.options.overwrite = true;
        run.options.shard_size_gb = 0.0007;
        pack_ok(&run);
        assert_int_equal(run.result.documents, 1);
        assert_int_equal(run.result.shards, 5);
        expect_packed("out", bytes, SIZE);
    }
    put_bytes("plain.gz", bytes, 2000); /* the name says gzip, the content does not */
    RUN(run, "out", at("plain.gz"));
    run.options.overwrite = true;
    pack_ok(&run);
    expect_packed("out", bytes, 2000);
    free(bytes);
    free(packed);
}

/* A folder of good files around one that is damaged in the given way: it is reported, and leaves no byte behind. */
static void expect_damage(const char *name, const void *data, size_t size, const char *reason) {
    bb_file_make_dirs(at("mixed"), NULL);
    put("mixed/a.txt", "before");
    put("mixed/z.txt", "after");
    char inner[128];
    snprintf(inner, sizeof inner, "mixed/%s", name);
    put_bytes(inner, data, size);
    RUN(run, "damage", at("mixed"));
    run.options.sep_byte = '|';
    run.options.overwrite = true;
    run.options.shard_size_gb = 1e-9 * 100000; /* the damaged file had filled several shards by then */
    pack_ok(&run);
    expect_text("damage", "before|after");
    assert_int_equal(run.result.files, 2);
    assert_int_equal(run.result.documents, 2);
    assert_int_equal(run.result.skipped, 1);
    assert_int_equal(run.skips, 1);
    if (!strstr(run.skip_text, inner) || !strstr(run.skip_text, reason))
        fail_msg("%s lacks %s or %s", run.skip_text, inner, reason);
    RUN(strict, "strict", at("mixed"));
    strict.options.strict = true;
    pack_fails(&strict, BB_ERR_FORMAT, reason);
    assert_non_null(strstr(strict.err.message, inner));
    assert_int_equal(access(at("strict"), F_OK), -1);
    unlink(at(inner));
}

static void damaged_files_leave_nothing(void **state) {
    (void)state;
    enum { SIZE = 2500000 };
    uint8_t *bytes = noise(SIZE, 2), *packed = malloc(SIZE * 2);
    assert_non_null(packed);
    size_t used = gzip_member(packed, 0, SIZE * 2, bytes, SIZE);
    expect_damage("m.txt.gz", packed, used - 3, "gzip data is truncated");
    packed[used - 6] ^= 1; /* its checksum */
    expect_damage("m.txt.gz", packed, used, "gzip data is damaged");
    packed[used - 6] ^= 1;
    memset(packed + used, '!', 8); /* something else after the end */
    expect_damage("m.txt.gz", packed, used + 8, "gzip data is damaged");
    used = zstd_frame(packed, 0, SIZE * 2, bytes, SIZE);
    expect_damage("m.txt.zst", packed, used - 1, "zstd data is truncated");
    memset(packed + used, '!', 8); /* something else after the end */
    expect_damage("m.txt.zst", packed, used + 8, "zstd data is damaged");
    used = xz_stream(packed, 0, SIZE * 2, bytes, SIZE);
    expect_damage("m.txt.xz", packed, used - 1, "xz data is truncated");
    packed[used / 2] ^= 1;
    expect_damage("m.txt.xz", packed, used, "xz data is damaged");
    packed[used / 2] ^= 1;
    memset(packed + used, '!', 16);
    expect_damage("m.txt.xz", packed, used + 16, "xz data is damaged");
    used = bzip2_stream(packed, 0, SIZE * 2, bytes, SIZE);
    expect_damage("m.txt.bz2", packed, used - 1, "bzip2 data is truncated");
    packed[used / 2] ^= 1;
    expect_damage("m.txt.bz2", packed, used, "bzip2 data is damaged");
    packed[used / 2] ^= 1;
    memset(packed + used, '!', 8);
    expect_damage("m.txt.bz2", packed, used + 8, "bzip2 data is damaged");
    expect_damage("m.txt.gz", "\x1f\x8b\x08", 3, "gzip data is truncated");
    expect_damage("m.json", "[{\"text\": \"one\"},\n {\"text\": two}]", 34, "line 2: malformed JSON");
    expect_damage("m.json", "{\"text\": \"\xff\"}", 13, "line 1: malformed JSON");
    /* Its first line is good, and goes with the rest of the damaged file. */
    size_t line = gzip_member(packed, 0, SIZE * 2, "{\"text\": \"good\"}\n{\"text\": \"cut\"}\n", 33);
    expect_damage("m.jsonl.gz", packed, line - 9, "gzip data is truncated");
    free(bytes);
    free(packed);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------- */

static void expect_json(const char *name, const char *json, const char *wanted, int64_t skipped, const char *reason) {
    put(name, json);
    put("first.txt", "0");
    RUN(run, "json", at("first.txt"), at(name));
    run.options.sep_byte = '|';
    run.options.overwrite = true;
    pack_ok(&run);
    expect_text("json", wanted);
    assert_int_equal(run.result.skipped, skipped);
    if (reason && !strstr(run.skip_text, reason)) fail_msg("\"%s\" lacks \"%s\"", run.skip_text, reason);
    assert_int_equal(run.skips > 0, skipped > 0);
}

static void json_values_are_documents(void **state) {
    (void)state;
    expect_json("a.json", "{\"text\": \"x\"}", "0|x", 0, NULL);
    expect_json("a.JSON", "[{\"text\": \"x\"}, {\"story\": \"y\"}]", "0|x|y", 0, NULL);
    expect_json("a.json", "{\"about\": \"no\", \"n\": 3, \"questions\": [{\"q\": 1, \"text\": \"x\"}, {\"text\": \"y\"}]}",
                "0|x|y", 0, NULL);
    expect_json("a.json", "{\"id\": 1, \"data\": {\"deep\": {\"content\": \"x\"}}}", "0|x", 0, NULL);
    /* The first key wins, whatever the order in the file; a record's own key wins over nested ones. */
    expect_json("a.json", "{\"content\": \"c\", \"completion\": \"d\", \"story\": \"s\", \"text\": \"t\"}", "0|t", 0, NULL);
    expect_json("a.json", "{\"meta\": {\"text\": \"no\"}, \"content\": \"c\"}", "0|c", 0, NULL);
    expect_json("a.json", "{\"text\": null, \"story\": 5, \"content\": \"c\"}", "0|c", 0, NULL);
    expect_json("a.json", "{\"text\": \"\", \"content\": \"c\"}", "0|c", 0, NULL);
    expect_json("a.json", "{\"text\": [\"x\", {\"text\": \"y\"}, 3, [\"z\"]]}", "0|x|y|z", 0, NULL);
    expect_json("a.json", "{\"content\": [{\"type\": \"t\", \"text\": \"x\"}]}", "0|x", 0, NULL);
    /* Escapes become the bytes that they stand for, raw UTF-8 stays, a byte order mark and long integers do not matter. */
    expect_json("a.json",
                "\xef\xbb\xbf{\"n\": 123456789012345678901234567890, \"text\": \"\\u00e9\\n\\ud83d\\ude00 \xd0\x96\"}",
                "0|\xc3\xa9\n\xf0\x9f\x98\x80 \xd0\x96", 0, NULL);
    expect_json("a.json", "{\"text\": \"x\"}\n{\"text\": \"y\"} [{\"text\": \"z\"}]", "0|x|y|z", 0, NULL);
    expect_json("a.json", " \n ", "0", 0, NULL);
    expect_json("a.json", "[{\"text\": \"x\"}, {\"t\": \"y\"}, 7, \"s\"]", "0|x", 3,
                "3 of 4 records have no text under text,story,completion,content");
    expect_json("a.json", "{\"t\": [{\"u\": \"y\"}]}", "0", 1, "1 of 1 records have no text");
}

/* What Python's json and others write, in and around texts. */
static void json_need_not_be_strict(void **state) {
    (void)state;
    expect_json("a.jsonl", "{\"score\": NaN, \"text\": \"x NaN\"}\n{\"a\": [Infinity, -Infinity], \"text\": \"y\"}\n",
                "0|x NaN|y", 0, NULL);
    expect_json("a.jsonl", "{\"score\": -1.5e+999, \"text\": \"1e999\"}\n{\"n\": 0.1E400, \"text\": \"y\"}\n", "0|1e999|y", 0,
                NULL);
    expect_json("a.jsonl", "{\"id\": \"\\ud800 \\\"\", \"text\": \"x\"}\n", "0|x", 0, NULL);
    expect_json("a.json", "{\"text\": \"a\\ud83db\\udc00\\ud83d\\ude00c\\ud83d\"}",
                "0|a\xef\xbf\xbd"
                "b\xef\xbf\xbd\xf0\x9f\x98\x80"
                "c\xef\xbf\xbd",
                0, NULL);
    expect_json("a.json", "[{\"text\": \"x\"}, {\"n\": NaN, \"text\": \"y\"}] {\"n\": NaN, \"text\": \"z\"}", "0|x|y|z", 0,
                NULL);
    expect_json("a.jsonl", "{\"text\": NaN, \"story\": \"x\"}\n", "0|x", 0, NULL);
    /* Other faults stay faults. */
    const char *faults[] = {"{\"n\": NaNa, \"text\": \"x\"}", "{\"n\": 01, \"text\": \"x\"}", "{\"n\": 1.2.3, \"text\": \"x\"}",
                            "{\"n\": 1 2, \"text\": \"x\"}",  "{\"n\": -, \"text\": \"x\"}",  "{\"n\": 1e, \"text\": \"x\"}",
                            "{NaN: 1, \"text\": \"x\"}",      "{\"text\": \"\\ud80\"}",       "{\"text\": \"\\"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) expect_json("a.jsonl", faults[i], "0", 1, "malformed JSON");
}

static void json_text_may_hold_nul(void **state) {
    (void)state;
    put("a.json", "{\"text\": \"x\\u0000y\"}");
    RUN(run, "out", at("a.json"));
    pack_ok(&run);
    expect_packed("out", "x\0y", 3);
}

static void json_lines_are_documents(void **state) {
    (void)state;
    expect_json("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n", "0|x|y", 0, NULL);
    expect_json("a.ndjson", "{\"text\": \"x\"}\r\n\n  \n{\"text\": \"y\"}", "0|x|y", 0, NULL);
    expect_json("a.jsonl", "{\"text\": \"x\"}\n{\"text\": oops}\n\n{\"text\": \"y\"}\n{\"text\": \"z\"} z\n", "0|x|y", 2,
                "a.jsonl: line 2: malformed JSON");
    expect_json("a.jsonl", "{\"text\": \"x\"}\n{\"text\": oops}\n\n{\"text\": \"y\"}\n{\"text\": \"z\"} z\n", "0|x|y", 2,
                "a.jsonl: line 5: malformed JSON");
    expect_json("a.jsonl", "\n{\"text\": \"x\"}\n{\"t\": 1}\n{\"t\": 2}\n", "0|x", 2, "2 of 3 records have no text");
    expect_json("a.jsonl", "\n{\"text\": \"x\"}\n{\"t\": 1}\n{\"t\": 2}\n", "0|x", 2, "the first is line 3");
    expect_json("a.jsonl", "", "0", 0, NULL);

    put("a.jsonl", "{\"text\": \"x\"}\n\n{\"t\": 1}\n{\"text\": oops}\n");
    RUN(strict, "strict", at("a.jsonl"));
    strict.options.strict = true;
    pack_fails(&strict, BB_ERR_FORMAT, "the first is line 3");
    put("a.jsonl", "{\"text\": \"x\"}\n\n{\"text\": oops}\n");
    pack_fails(&strict, BB_ERR_FORMAT, "a.jsonl: line 3: malformed JSON");
}

static void many_malformed_lines_are_not_all_said(void **state) {
    (void)state;
    char lines[1000] = "{\"text\": \"x\"}\n";
    for (int i = 0; i < 50; i++) strcat(lines, "{oops}\n");
    put("a.jsonl", lines);
    RUN(run, "out", at("a.jsonl"));
    pack_ok(&run);
    expect_text("out", "x");
    assert_int_equal(run.result.skipped, 50);
    assert_int_equal(run.skips, 21);
    assert_non_null(strstr(run.skip_text, "and 30 more malformed lines"));
}

static void json_lines_may_be_longer_than_the_buffers(void **state) {
    (void)state;
    enum { LONG = 1500000 };
    char *lines = malloc(LONG * 2 + 200), *wanted = malloc(LONG * 2 + 200);
    assert_non_null(lines);
    assert_non_null(wanted);
    size_t used = 0, out = 0;
    for (int i = 0; i < 4; i++) {
        size_t length = i % 2 ? 5 : LONG;
        used += (size_t)sprintf(lines + used, "{\"text\": \"");
        memset(lines + used, 'a' + i, length);
        used += length;
        used += (size_t)sprintf(lines + used, "\"}\n");
        memset(wanted + out, 'a' + i, length);
        out += length;
    }
    uint8_t *packed = malloc(LONG);
    size_t packed_size = zstd_frame(packed, 0, LONG, lines, used);
    put_bytes("a.jsonl.zst", packed, packed_size);
    RUN(run, "out", at("a.jsonl.zst"));
    run.options.sep_byte = -1;
    pack_ok(&run);
    assert_int_equal(run.result.documents, 4);
    expect_packed("out", wanted, out);
    free(packed);
    free(lines);
    free(wanted);
}

static void json_keys_name_the_text(void **state) {
    (void)state;
    put("a.jsonl", "{\"text\": \"x\", \"q\": \"1\"}\n{\"text\": \"y\", \"a\": \"2\"}\n");
    const char *keys[] = {"q", "a"};
    RUN(run, "out", at("a.jsonl"));
    run.options.json_keys = keys;
    run.options.json_key_count = 2;
    pack_ok(&run);
    expect_packed("out", "1\0002", 3);
    RUN(raw, "raw", at("a.jsonl")); /* no keys: JSON is text like any other */
    raw.options.json_key_count = 0;
    pack_ok(&raw);
    expect_text("raw", "{\"text\": \"x\", \"q\": \"1\"}\n{\"text\": \"y\", \"a\": \"2\"}\n");
}

/* What is in a file is said for all of them, whatever their names. */
static void input_format_overrides_the_name(void **state) {
    (void)state;
    put("lines", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n");
    put("lines.json", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n");
    RUN(lines, "lines.out", at("lines"), at("lines.json"));
    lines.options.input_format = BB_INPUT_JSON_LINES;
    lines.options.sep_byte = '|';
    pack_ok(&lines);
    expect_text("lines.out", "x|y|x|y");
    RUN(json, "json.out", at("lines"));
    json.options.input_format = BB_INPUT_JSON;
    json.options.sep_byte = '|';
    pack_ok(&json);
    expect_text("json.out", "x|y");
    RUN(text, "text.out", at("lines.json"));
    text.options.input_format = BB_INPUT_TEXT;
    pack_ok(&text);
    expect_text("text.out", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n");
    RUN(wrong, "wrong", at("lines"));
    wrong.options.input_format = BB_INPUT_JSON_LINES;
    wrong.options.json_key_count = 0;
    pack_fails(&wrong, BB_ERR_ARGUMENT, "json_keys");
}

/* ---- Inputs that are not there ---------------------------------------------------------------------------------------- */

static void missing_inputs_are_skipped(void **state) {
    (void)state;
    put("a.txt", "A");
    RUN(run, "out", at("absent"), at("a.txt"), at("a.txt/below"));
    pack_ok(&run);
    expect_text("out", "A");
    assert_int_equal(run.result.skipped, 2);
    assert_non_null(strstr(run.skip_text, "absent: cannot read: No such file"));
    assert_non_null(strstr(run.skip_text, "a.txt/below: cannot read: Not a directory"));
    RUN(strict, "strict", at("a.txt"), at("absent"));
    strict.options.strict = true;
    pack_fails(&strict, BB_ERR_IO, "absent: cannot read: No such file");
    RUN(none, "none", at("absent"));
    pack_fails(&none, BB_ERR_DATA, "1 skipped, the first");
    assert_int_equal(access(at("none"), F_OK), -1);
}

static void unreadable_inputs_are_skipped(void **state) {
    (void)state;
    put("a.txt", "A");
    put("locked.txt", "B");
    chmod(at("locked.txt"), 0);
    chmod(scratch_dir, 0777);
    bool is_root = geteuid() == 0; /* root reads everything */
    if (is_root) assert_int_equal(seteuid(65534), 0);
    RUN(run, "out", at("locked.txt"), at("a.txt"), "/proc/self/mem");
    pack(&run);
    if (is_root) assert_int_equal(seteuid(0), 0);
    assert_int_equal(run.status, BB_OK);
    expect_text("out", "A");
    assert_int_equal(run.result.skipped, 2);
    assert_non_null(strstr(run.skip_text, "locked.txt: cannot open: Permission denied"));
    assert_non_null(strstr(run.skip_text, "/proc/self/mem: cannot "));
}

static void empty_inputs_are_an_error(void **state) {
    (void)state;
    put("empty.txt", "");
    RUN(run, "out", at("empty.txt"));
    pack_fails(&run, BB_ERR_DATA, "1 files, all of them empty");
    assert_int_equal(access(at("out"), F_OK), -1);
}

static void expect_option_error(void (*spoil)(bb_pack_options *), const char *part) {
    RUN(run, "out", at("a.txt"));
    spoil(&run.options);
    pack_fails(&run, BB_ERR_ARGUMENT, part);
    assert_int_equal(access(at("out"), F_OK), -1);
}

static void no_inputs(bb_pack_options *o) { o->input_count = 0; }
static void no_out_dir(bb_pack_options *o) { o->out_dir = ""; }
static void zero_shard(bb_pack_options *o) { o->shard_size_gb = 0; }
static void nan_shard(bb_pack_options *o) { o->shard_size_gb = 0.0 / 0.0; }
static void large_separator(bb_pack_options *o) { o->sep_byte = 256; }
static void small_separator(bb_pack_options *o) { o->sep_byte = -2; }
static void whole_val(bb_pack_options *o) { o->val_frac = 1; }
static void negative_val(bb_pack_options *o) { o->val_frac = -0.1; }

static void impossible_options_are_errors(void **state) {
    (void)state;
    put("a.txt", "A");
    expect_option_error(no_inputs, "inputs");
    expect_option_error(no_out_dir, "out_dir");
    expect_option_error(zero_shard, "shard_size_gb");
    expect_option_error(nan_shard, "shard_size_gb");
    expect_option_error(large_separator, "sep_byte: expected 0 to 255, or -1 for none, found 256");
    expect_option_error(small_separator, "sep_byte");
    expect_option_error(whole_val, "val_frac");
    expect_option_error(negative_val, "val_frac");
}

int main(void) {
#define TEST(name) cmocka_unit_test_teardown(name, empty_scratch)
    const struct CMUnitTest tests[] = {
        TEST(a_folder_is_sorted_by_path),
        TEST(extensions_choose_files),
        TEST(files_left_out_are_counted),
        TEST(inputs_keep_their_order_and_come_once),
        TEST(out_dir_is_no_input),
        TEST(separators_stand_between_documents),
        TEST(content_decides_on_decompression),
        TEST(damaged_files_leave_nothing),
        TEST(json_values_are_documents),
        TEST(json_need_not_be_strict),
        TEST(json_text_may_hold_nul),
        TEST(json_lines_are_documents),
        TEST(many_malformed_lines_are_not_all_said),
        TEST(json_lines_may_be_longer_than_the_buffers),
        TEST(json_keys_name_the_text),
        TEST(input_format_overrides_the_name),
        TEST(missing_inputs_are_skipped),
        TEST(unreadable_inputs_are_skipped),
        TEST(empty_inputs_are_an_error),
        TEST(impossible_options_are_errors),
    };
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
