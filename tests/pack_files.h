// SPDX-License-Identifier: MIT
/* Shared by the tests of the packer: a scratch folder, input files in three compressions, and reading packs back. */
#ifndef BB_TESTS_PACK_FILES_H
#define BB_TESTS_PACK_FILES_H

#include <bzlib.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/rng.h"
#include "scratch.h"

/* Files of the scratch folder are named relative to it. */
static inline const char *at(const char *name) { return scratch_path(name); }

static inline void put_bytes(const char *name, const void *data, size_t size) {
    assert_true(scratch_write(at(name), data, size));
}

static inline void put(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

/* Appends one gzip member, zstd frame, xz or bzip2 stream to buffer; returns the new length. */
static inline size_t gzip_member(uint8_t *buffer, size_t used, size_t capacity, const void *data, size_t size) {
    z_stream z = {
        .next_in = (Bytef *)data, .avail_in = (uInt)size, .next_out = buffer + used, .avail_out = (uInt)(capacity - used)};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    used += z.total_out;
    deflateEnd(&z);
    return used;
}

static inline size_t zstd_frame(uint8_t *buffer, size_t used, size_t capacity, const void *data, size_t size) {
    size_t n = ZSTD_compress(buffer + used, capacity - used, data, size, 3);
    assert_false(ZSTD_isError(n));
    return used + n;
}

static inline size_t xz_stream(uint8_t *buffer, size_t used, size_t capacity, const void *data, size_t size) {
    assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, data, size, buffer, &used, capacity), LZMA_OK);
    return used;
}

static inline size_t bzip2_stream(uint8_t *buffer, size_t used, size_t capacity, const void *data, size_t size) {
    unsigned n = (unsigned)(capacity - used);
    assert_int_equal(BZ2_bzBuffToBuffCompress((char *)buffer + used, &n, (char *)data, (unsigned)size, 1, 0, 0), BZ_OK);
    return used + n;
}

/* Everything that one process run says about a pack. */
typedef struct pack_run {
    bb_pack_options options; /* without inputs and out_dir, which pack() fills in */
    char inputs[8][512], out[512];
    bb_pack_result result;
    bb_status status;
    bb_error err;
    int skips;
    char skip_text[4096]; /* "path: reason\n" of each */
    char note_text[1024]; /* "message\n" of each note */
    int64_t last_files_done, last_files_total, progress_calls;
    volatile int stop;
    int64_t stop_after_calls; /* of on_progress; 0: never */
} pack_run;

static inline void note_skip(void *user, const char *path, const char *reason) {
    pack_run *run = user;
    size_t used = strlen(run->skip_text);
    run->skips++;
    snprintf(run->skip_text + used, sizeof run->skip_text - used, "%s: %s\n", path, reason);
}

static inline void note_note(void *user, const char *message) {
    pack_run *run = user;
    size_t used = strlen(run->note_text);
    snprintf(run->note_text + used, sizeof run->note_text - used, "%s\n", message);
}

static inline void note_progress(void *user, int64_t files_done, int64_t files_total, int64_t bytes_done) {
    pack_run *run = user;
    (void)bytes_done;
    run->last_files_done = files_done;
    run->last_files_total = files_total;
    if (++run->progress_calls == run->stop_after_calls) run->stop = 1;
}

/* The pack goes to `out` in the scratch folder, which need not exist. inputs: paths, (count). */
static inline pack_run new_run(const char *const *inputs, int count, const char *out) {
    pack_run run = {0};
    bb_pack_options_default(&run.options);
    run.options.input_count = count;
    for (int i = 0; i < count; i++) snprintf(run.inputs[i], sizeof run.inputs[i], "%s", inputs[i]);
    snprintf(run.out, sizeof run.out, "%s", at(out));
    return run;
}

static inline void pack(pack_run *run) {
    const char *inputs[8];
    for (int i = 0; i < 8; i++) inputs[i] = run->inputs[i];
    run->options.inputs = inputs;
    if (!run->options.out_dir) run->options.out_dir = run->out;
    run->options.on_skip = note_skip;
    run->options.on_note = note_note;
    run->options.on_progress = note_progress;
    run->options.user = run;
    run->options.stop = &run->stop;
    run->status = bb_pack(&run->options, &run->result, &run->err);
}

static inline void pack_ok(pack_run *run) {
    pack(run);
    if (run->status != BB_OK) fail_msg("%s", run->err.message);
}

static inline void pack_fails(pack_run *run, bb_status code, const char *part) {
    pack(run);
    assert_int_equal(run->status, code);
    if (!strstr(run->err.message, part)) fail_msg("\"%s\" lacks \"%s\"", run->err.message, part);
}

/* All bytes of `prefix`_00000.bin and so on, one after the other; free() it. */
static inline uint8_t *read_shards(const char *out, const char *prefix, size_t *size, int *count) {
    uint8_t *all = malloc(1);
    *size = 0;
    for (*count = 0;; ++*count) {
        char name[128];
        snprintf(name, sizeof name, "%s/%s_%05d.bin", out, prefix, *count);
        uint8_t *bytes = NULL;
        size_t n = 0;
        if (access(at(name), F_OK) != 0) return all;
        assert_int_equal(bb_file_read_all(at(name), 0, &bytes, &n, NULL), BB_OK);
        all = realloc(all, *size + n + 1);
        assert_non_null(all);
        memcpy(all + *size, bytes, n);
        *size += n;
        free(bytes);
    }
}

static inline void expect_packed(const char *out, const void *wanted, size_t wanted_size) {
    size_t size, val_size;
    int count;
    uint8_t *train = read_shards(out, "shard", &size, &count), *val = read_shards(out, "val", &val_size, &count);
    train = realloc(train, size + val_size + 1);
    assert_non_null(train);
    memcpy(train + size, val, val_size);
    assert_int_equal(size + val_size, wanted_size);
    assert_memory_equal(train, wanted, wanted_size);
    free(train);
    free(val);
}

static inline void expect_text(const char *out, const char *wanted) { expect_packed(out, wanted, strlen(wanted)); }

static inline int count_names(const char *name) { return scratch_count_entries(at(name)); }

static inline int empty_scratch(void **state) { return scratch_remove(state) == 0 && mkdir(scratch_dir, 0777) == 0 ? 0 : -1; }

#endif
