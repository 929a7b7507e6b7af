// SPDX-License-Identifier: MIT
/* Datasets: how files are found, which bytes a sample number selects, and how ranks and resumed runs share the numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/dataset.h"
#include "scratch.h"

/* Content that tells where it is: in every four bytes the file, the place (two), and the file again. */
static void write_file(const char *name, size_t size, uint8_t tag) {
    uint8_t *bytes = malloc(size + 4);
    assert_non_null(bytes);
    for (size_t i = 0; i < size + 3; i += 4) {
        size_t j = i / 4;
        uint8_t quad[4] = {tag, (uint8_t)j, (uint8_t)(j >> 8), (uint8_t)(255 - tag)};
        memcpy(bytes + i, quad, i + 4 <= size + 4 ? 4 : size + 4 - i);
    }
    assert_true(scratch_write(scratch_path(name), bytes, size));
    free(bytes);
}

static const char *at(const char *name) { return scratch_path(name); }

static bb_dataset *open_shards(const char *data, int seq_len, uint64_t seed, int rank, int world_size) {
    bb_dataset *dataset = NULL;
    bb_error err = {0};
    if (bb_byte_shard_dataset_open(data, seq_len, seed, rank, world_size, &dataset, &err) != BB_OK) fail_msg("%s", err.message);
    return dataset;
}

/* The file and the offset that a sample of the dataset begins at, as one window number counted by hand. */
static int64_t window_number(const bb_dataset *dataset, bb_window window) {
    int64_t before = 0;
    for (int i = 0; i < window.file; i++) {
        int64_t windows = dataset->source.files[i].size - dataset->seq_len;
        if (windows > 0) before += windows;
    }
    assert_in_range(window.offset, 0, dataset->source.files[window.file].size - dataset->seq_len - 1);
    return before + window.offset;
}

/* The `size` bytes of a file of the dataset from `offset` on, as another reader sees them. Valid until the next call. */
static const uint8_t *bytes_at(const bb_dataset *dataset, bb_window window, size_t size) {
    static uint8_t bytes[512];
    FILE *f = fopen(dataset->source.files[window.file].path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)window.offset, SEEK_SET), 0);
    assert_int_equal(fread(bytes, 1, size, f), size);
    (void)fclose(f);
    return bytes;
}

static void files_are_found(void **state) {
    (void)state;
    struct {
        const char *data;
        int64_t shards, bytes;
    } cases[] = {{scratch_dir, 3, 300 + 500 + 77},
                 {at("shard_*.bin"), 3, 300 + 500 + 77},
                 {at("shard_0000[01].bin"), 2, 800},
                 {at("other.bin"), 1, 400}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bb_dataset *dataset = open_shards(cases[i].data, 16, 1, 0, 1);
        bb_dataset_info info = bb_dataset_get_info(dataset);
        assert_int_equal(info.shards, cases[i].shards);
        assert_int_equal(info.bytes, cases[i].bytes);
        assert_int_equal(info.skipped_shards, 0);
        assert_null(info.warning);
        for (int k = 1; k < dataset->source.count; k++)
            assert_true(strcmp(dataset->source.files[k - 1].path, dataset->source.files[k].path) < 0);
        bb_dataset_close(dataset);
    }
    bb_dataset *dataset = open_shards(at("odd[1]dir"), 16, 1, 0, 1); /* a directory's name is never a pattern */
    assert_int_equal(bb_dataset_get_info(dataset).bytes, 60);
    bb_dataset_close(dataset);
}

static void expect_error(const char *data, int seq_len, int rank, int world_size, bb_status code, const char *part) {
    bb_dataset *dataset = (bb_dataset *)&dataset;
    bb_error err = {0};
    assert_int_equal(bb_byte_shard_dataset_open(data, seq_len, 1, rank, world_size, &dataset, &err), code);
    assert_int_equal(err.code, code);
    assert_null(dataset);
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
}

static void messages_say_what_is_wrong(void **state) {
    (void)state;
    expect_error(at("none_*.bin"), 16, 0, 1, BB_ERR_DATA, "none_*.bin: no file matches");
    expect_error(at("absent"), 16, 0, 1, BB_ERR_DATA, "absent: no such file");
    expect_error(at("empty_dir"), 16, 0, 1, BB_ERR_DATA, "holds no shard_*.bin");
    expect_error(at("empty_*"), 16, 0, 1, BB_ERR_DATA, "matches only directories");
    expect_error("", 16, 0, 1, BB_ERR_ARGUMENT, "found nothing");
    expect_error("-", 16, 0, 1, BB_ERR_ARGUMENT, "standard input");
    expect_error(at("other.bin"), 0, 0, 1, BB_ERR_ARGUMENT, "seq_len");
    expect_error(at("other.bin"), 16, 2, 2, BB_ERR_ARGUMENT, "found 2 and 2");
    expect_error(at("other.bin"), 16, -1, 2, BB_ERR_ARGUMENT, "rank");
    expect_error(at("other.bin"), 400, 0, 1, BB_ERR_DATA, "400 bytes, expected at least 401");
    expect_error(scratch_dir, 500, 0, 1, BB_ERR_DATA, "none of its 3 files has the 501 bytes");
    expect_error(scratch_dir, 500, 0, 1, BB_ERR_DATA, "shard_00001.bin, has 500");
    expect_error(scratch_dir, INT32_MAX, 0, 1, BB_ERR_DATA, "2147483648");
    bb_dataset *dataset = NULL;
    bb_error err = {0};
    assert_int_equal(bb_byte_stream_dataset_open(scratch_dir, 16, 1, 0, 1, &dataset, &err), BB_ERR_IO);
    assert_non_null(strstr(err.message, "a directory"));
    assert_int_equal(bb_byte_stream_dataset_open(at("shard_*.bin"), 16, 1, 0, 1, &dataset, &err), BB_ERR_IO);
}

static void short_shards_are_passed_over(void **state) {
    (void)state;
    bb_dataset *dataset = open_shards(scratch_dir, 77, 1, 0, 1); /* shard_00002.bin has 77 bytes: one too few */
    bb_dataset_info info = bb_dataset_get_info(dataset);
    assert_int_equal(info.shards, 2);
    assert_int_equal(info.bytes, 800);
    assert_int_equal(info.skipped_shards, 1);
    assert_non_null(strstr(info.warning, "1 of 3 shards"));
    assert_non_null(strstr(info.warning, "shard_00002.bin (77 bytes)"));
    for (uint64_t n = 0; n < 2000; n++) assert_true(window_number(dataset, bb_dataset_sample(dataset, n)) < 300 + 500 - 2 * 77);

    bb_error err = {0};
    assert_int_equal(bb_dataset_set_seq_len(dataset, 76, &err), BB_OK); /* exactly one window there now */
    assert_null(bb_dataset_get_info(dataset).warning);
    assert_int_equal(bb_dataset_get_info(dataset).shards, 3);
    int hits = 0;
    for (uint64_t n = 0; n < 4000; n++) hits += window_number(dataset, bb_dataset_sample(dataset, n)) == 300 + 500 - 2 * 76;
    assert_in_range(hits, 1, 30); /* one window of 649 */

    assert_int_equal(bb_dataset_set_seq_len(dataset, 500, &err), BB_ERR_DATA); /* refused: all stays as it was */
    assert_int_equal(bb_dataset_seq_len(dataset), 76);
    assert_int_equal(bb_dataset_get_info(dataset).shards, 3);
    bb_dataset_close(dataset);
}

static void batches_are_windows(void **state) {
    (void)state;
    enum { T = 24, B = 5 };
    bb_dataset *dataset = open_shards(scratch_dir, T, 7, 0, 1);
    uint8_t x[B * T], y[B * T];
    bb_error err = {0};
    for (int step = 0; step < 20; step++) {
        assert_int_equal(bb_dataset_batch(dataset, B, 1, 0, x, y, &err), BB_OK);
        for (int b = 0; b < B; b++) {
            bb_window sample = bb_dataset_sample(dataset, bb_dataset_position(dataset) + (uint64_t)b);
            const uint8_t *window = bytes_at(dataset, sample, T + 1);
            assert_memory_equal(x + b * T, window, T);
            assert_memory_equal(y + b * T, window + 1, T);
        }
        bb_dataset_next_step(dataset, B, 1);
    }
    assert_int_equal(bb_dataset_position(dataset), 20 * B);
    assert_int_equal(bb_dataset_batch(dataset, 0, 1, 0, x, y, &err), BB_ERR_ARGUMENT);
    assert_int_equal(bb_dataset_batch(dataset, 1, 2, 2, x, y, &err), BB_ERR_ARGUMENT);
    assert_int_equal(bb_dataset_batch(dataset, 1, 2, -1, x, y, &err), BB_ERR_ARGUMENT);
    bb_dataset_close(dataset);
}

/* The rule for runs begun before there were epochs, written out on its own. */
static void windows_with_replacement_follow_the_old_rule(void **state) {
    (void)state;
    const size_t sizes[3] = {300, 500, 77};
    bb_dataset *dataset = open_shards(scratch_dir, 16, 99, 0, 1);
    bb_error err = {0};
    bb_dataset_set_sampling(dataset, BB_SAMPLING_WITH_REPLACEMENT);
    for (int pass = 0; pass < 2; pass++) {
        int seq_len = pass ? 100 : 16;
        assert_int_equal(bb_dataset_set_seq_len(dataset, seq_len, &err), BB_OK);
        for (uint64_t n = 0; n < 500; n++) {
            uint64_t windows[3], total = 0;
            for (int i = 0; i < 3; i++) {
                windows[i] = sizes[i] > (size_t)seq_len ? sizes[i] - (size_t)seq_len : 0;
                total += windows[i];
            }
            uint64_t window = bb_rng_below(99, BB_STREAM_DATA, n, total);
            int file = 0;
            for (; file < 2 && window >= windows[file]; file++) window -= windows[file];
            bb_window sample = bb_dataset_sample(dataset, n);
            assert_int_equal(sample.file, file);
            assert_int_equal(sample.offset, window);
        }
    }
    bb_dataset_close(dataset);
}

/* The rule of docs/FORMAT.md, written out as plainly as it can be: samples in the order of their numbers. */
static void epochs_follow_the_rule(void **state) {
    (void)state;
    enum { SEED = 99, SAMPLES = 3000 };
    const int lengths[] = {1, 16, 100, 76, 299, 499};
    const int64_t sizes[3] = {300, 500, 77};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        int T = lengths[l];
        bb_dataset *dataset = open_shards(scratch_dir, T, SEED, 0, 1);
        uint64_t n = 0;
        for (uint64_t epoch = 0; n < SAMPLES; epoch++) {
            uint64_t cycle = epoch / (uint64_t)T, place = epoch % (uint64_t)T;
            int64_t o = (int64_t)bb_rng_permute(bb_rng_u64(SEED, BB_STREAM_EPOCH_OFFSETS, cycle), place, (uint64_t)T);
            bb_window windows[900];
            uint64_t count = 0;
            for (int file = 0; file < 3; file++)
                for (int64_t at = o; at + T + 1 <= sizes[file]; at += T) windows[count++] = (bb_window){file, at};
            for (uint64_t k = 0; k < count; k++, n++) {
                bb_window want = windows[bb_rng_permute(bb_rng_u64(SEED, BB_STREAM_EPOCH_WINDOWS, epoch), k, count)];
                bb_window found = bb_dataset_sample(dataset, n);
                assert_int_equal(found.file, want.file);
                assert_int_equal(found.offset, want.offset);
            }
        }
        /* whatever was asked for before, and far on */
        const uint64_t places[] = {SAMPLES - 1, 0, 1ull << 40, 17, (1ull << 40) + 1, 1ull << 40};
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            bb_dataset *fresh = open_shards(scratch_dir, T, SEED, 0, 1);
            bb_window a = bb_dataset_sample(dataset, places[i]), b = bb_dataset_sample(fresh, places[i]);
            assert_int_equal(a.file, b.file);
            assert_int_equal(a.offset, b.offset);
            bb_dataset_close(fresh);
        }
        bb_dataset_close(dataset);
    }
}

/* What is promised: no byte is an input twice in an epoch, and T epochs have each offset once. */
static void an_epoch_has_every_window_once(void **state) {
    (void)state;
    enum { T = 32, OFFSETS = 300 + 500 + 77 - 3 * T };
    bb_dataset *dataset = open_shards(scratch_dir, T, 12345, 0, 1);
    uint64_t n = 0;
    for (int cycle = 0; cycle < 3; cycle++) {
        bool taken[OFFSETS] = {false};
        for (int i = 0; i < OFFSETS; i++) {
            int64_t window = window_number(dataset, bb_dataset_sample(dataset, n++));
            assert_false(taken[window]);
            taken[window] = true;
        }
    }
    int at = 0;
    for (int epoch = 0; epoch < 40; epoch++) {
        uint8_t read[3][500] = {{0}};
        int count = 0, ascending = 0;
        int64_t last = -1;
        (void)bb_dataset_sample(dataset, (uint64_t)at);
        for (; count < (int)dataset->epoch_samples; count++) {
            bb_window w = bb_dataset_sample(dataset, (uint64_t)at++);
            for (int i = 0; i < T; i++) assert_int_equal(read[w.file][w.offset + i]++, 0);
            ascending += w.file * 1000 + w.offset > last;
            last = w.file * 1000 + w.offset;
        }
        assert_in_range(count, 23, 26);           /* 27.4 sequences of data, less what is cut off at six ends */
        assert_in_range(ascending, 4, count - 4); /* shuffled */
    }
    assert_true(bb_dataset_epochs(dataset, T, OFFSETS) > T - 1e-9 && bb_dataset_epochs(dataset, T, OFFSETS) < T + 1e-9);
    bb_dataset_close(dataset);
}

/* All rows that `world_size` ranks draw in `steps` steps, each as its place in memory relative to its file, in the order of
 * ranks, micro-batches and rows. Returns how many. */
static size_t draw_all(int world_size, int batch_size, int grad_accum, int steps, uint8_t *rows, int seq_len) {
    size_t count = 0;
    bb_dataset *ranks[4];
    uint8_t y[64 * 16];
    bb_error err = {0};
    for (int r = 0; r < world_size; r++) ranks[r] = open_shards(scratch_dir, seq_len, 5, r, world_size);
    for (int step = 0; step < steps; step++)
        for (int r = 0; r < world_size; r++) {
            for (int k = 0; k < grad_accum; k++) {
                assert_int_equal(bb_dataset_batch(ranks[r], batch_size, grad_accum, k, rows + count * (size_t)seq_len, y, &err),
                                 BB_OK);
                count += (size_t)batch_size;
            }
            bb_dataset_next_step(ranks[r], batch_size, grad_accum);
        }
    for (int r = 0; r < world_size; r++) bb_dataset_close(ranks[r]);
    return count;
}

static void ranks_share_a_step(void **state) {
    (void)state;
    enum { T = 16, GLOBAL = 24, STEPS = 7, BYTES = T * GLOBAL * STEPS };
    static uint8_t one[BYTES], other[BYTES];
    assert_int_equal(draw_all(1, 2, 12, STEPS, one, T), GLOBAL * STEPS);
    /* A rank takes a contiguous run of a step, so in rank order the samples come out as one process draws them. */
    int splits[][3] = {{1, 4, 6}, {2, 2, 6}, {4, 2, 3}, {4, 6, 1}, {2, 1, 12}};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        memset(other, 0, sizeof other);
        assert_int_equal(draw_all(splits[i][0], splits[i][1], splits[i][2], STEPS, other, T), GLOBAL * STEPS);
        assert_memory_equal(one, other, BYTES);
    }
}

static void ranks_are_disjoint(void **state) {
    (void)state;
    /* Which numbers a rank uses shows in what it draws: each of its rows is the sample of exactly one number of the step. */
    enum { T = 16, B = 3, ACCUM = 4, WORLD = 4, STEP = B * ACCUM * WORLD };
    bool taken[STEP] = {false};
    uint8_t x[B * T], y[B * T];
    bb_error err = {0};
    for (int r = 0; r < WORLD; r++) {
        bb_dataset *dataset = open_shards(scratch_dir, T, 31, r, WORLD);
        bb_dataset_set_position(dataset, 1000003);
        for (int k = 0; k < ACCUM; k++) {
            assert_int_equal(bb_dataset_batch(dataset, B, ACCUM, k, x, y, &err), BB_OK);
            for (int b = 0; b < B; b++) {
                int number = -1;
                for (int n = 0; n < STEP && number < 0; n++)
                    if (!taken[n] &&
                        memcmp(bytes_at(dataset, bb_dataset_sample(dataset, 1000003 + (uint64_t)n), T), x + b * T, T) == 0)
                        number = n;
                assert_true(number >= 0);
                taken[number] = true;
            }
        }
        bb_dataset_next_step(dataset, B, ACCUM);
        assert_int_equal(bb_dataset_position(dataset), 1000003 + STEP);
        bb_dataset_close(dataset);
    }
    for (int n = 0; n < STEP; n++) assert_true(taken[n]);
}

static void a_position_resumes(void **state) {
    (void)state;
    enum { T = 16, B = 4, ACCUM = 3 };
    uint8_t straight[30][B * T], x[B * T], y[B * T];
    bb_error err = {0};
    bb_dataset *dataset = open_shards(scratch_dir, T, 8, 1, 2);
    uint64_t stopped_at = 0;
    for (int step = 0; step < 10; step++) {
        if (step == 4) stopped_at = bb_dataset_position(dataset);
        for (int k = 0; k < ACCUM; k++)
            assert_int_equal(bb_dataset_batch(dataset, B, ACCUM, k, straight[step * ACCUM + k], y, &err), BB_OK);
        bb_dataset_next_step(dataset, B, ACCUM);
    }
    bb_dataset_close(dataset);
    assert_int_equal(stopped_at, 4 * B * ACCUM * 2);

    dataset = open_shards(scratch_dir, 64, 8, 1, 2); /* opened with another length, then set: the length leaves no trace */
    bb_dataset_set_position(dataset, stopped_at);
    assert_int_equal(bb_dataset_set_seq_len(dataset, T, &err), BB_OK);
    for (int step = 4; step < 10; step++) {
        for (int k = 0; k < ACCUM; k++) {
            assert_int_equal(bb_dataset_batch(dataset, B, ACCUM, k, x, y, &err), BB_OK);
            assert_memory_equal(x, straight[step * ACCUM + k], B * T);
        }
        bb_dataset_next_step(dataset, B, ACCUM);
    }
    bb_dataset_close(dataset);
}

static void a_stream_is_one_shard(void **state) {
    (void)state;
    bb_dataset *stream = NULL, *shards = open_shards(at("shard_00001.bin"), 20, 3, 0, 1);
    bb_error err = {0};
    assert_int_equal(bb_byte_stream_dataset_open(at("shard_00001.bin"), 20, 3, 0, 1, &stream, &err), BB_OK);
    assert_int_equal(bb_dataset_get_info(stream).shards, 1);
    assert_int_equal(bb_dataset_get_info(stream).bytes, 500);
    for (uint64_t n = 0; n < 300; n++)
        assert_int_equal(window_number(stream, bb_dataset_sample(stream, n)),
                         window_number(shards, bb_dataset_sample(shards, n)));
    bb_dataset_close(stream);
    bb_dataset_close(shards);
}

static void a_window_may_be_one_byte(void **state) {
    (void)state;
    bb_dataset *dataset = open_shards(at("two.dat"), 1, 0, 0, 1); /* two bytes, one window */
    uint8_t x = 0, y = 0;
    bb_error err = {0};
    assert_int_equal(bb_dataset_batch(dataset, 1, 1, 0, &x, &y, &err), BB_OK);
    const uint8_t *bytes = bytes_at(dataset, (bb_window){0}, 2);
    assert_int_equal(x, bytes[0]);
    assert_int_equal(y, bytes[1]);
    bb_dataset_close(dataset);
}

static void expect_read_error(bb_dataset *dataset, bb_status code, const char *part) {
    uint8_t x[16], y[16];
    bb_error err = {0};
    assert_int_equal(bb_dataset_batch(dataset, 1, 1, 0, x, y, &err), code);
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
}

/* Under the dataset a file shrinks, goes away, or another takes its name: an error that names it, no signal. One that grows or
 * is written to is none. */
static void damage_while_open_is_an_error(void **state) {
    (void)state;
    write_file("worn.bin", 8192, 9);
    bb_dataset *dataset = open_shards(at("worn.bin"), 16, 1, 0, 1);
    uint8_t x[16], y[16];
    bb_error err = {0};
    assert_int_equal(truncate(at("worn.bin"), 9000), 0);
    assert_int_equal(bb_dataset_batch(dataset, 1, 1, 0, x, y, &err), BB_OK);
    assert_int_equal(truncate(at("worn.bin"), 8191), 0);
    expect_read_error(dataset, BB_ERR_DATA, "worn.bin: expected 8192 bytes, found 8191");
    assert_int_equal(truncate(at("worn.bin"), 0), 0);
    expect_read_error(dataset, BB_ERR_DATA, "found 0: the file shrank");
    bb_dataset_close(dataset);

    write_file("worn.bin", 8192, 9);
    dataset = open_shards(at("worn.bin"), 16, 1, 0, 1);
    write_file("worn2.bin", 8192, 9);
    assert_int_equal(rename(at("worn2.bin"), at("worn.bin")), 0);
    expect_read_error(dataset, BB_ERR_DATA, "worn.bin: the file was removed or replaced");
    bb_dataset_close(dataset);

    dataset = open_shards(at("worn.bin"), 16, 1, 0, 1);
    assert_int_equal(unlink(at("worn.bin")), 0);
    expect_read_error(dataset, BB_ERR_DATA, "worn.bin: the file was removed or replaced");
    bb_dataset_close(dataset);
}

/* More files than are held open: the same samples, and what is found on opening one again is looked at again. */
static void more_files_than_are_held_open_give_the_same(void **state) {
    (void)state;
    enum { FILES = BB_BYTE_SOURCE_OPEN + 40, T = 8 };
    char name[64];
    assert_int_equal(mkdir(at("many"), 0777), 0);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "many/shard_%05d.bin", i);
        write_file(name, 40, (uint8_t)i);
    }
    bb_dataset *dataset = open_shards(at("many"), T, 3, 0, 1);
    uint8_t x[T], y[T];
    bb_error err = {0};
    for (int n = 0; n < 3000; n++) {
        bb_window sample = bb_dataset_sample(dataset, (uint64_t)n);
        assert_int_equal(bb_dataset_batch(dataset, 1, 1, 0, x, y, &err), BB_OK);
        assert_memory_equal(x, bytes_at(dataset, sample, T), T);
        assert_in_range(dataset->source.open, BB_BYTE_SOURCE_OPEN - 1, BB_BYTE_SOURCE_OPEN);
        bb_dataset_next_step(dataset, 1, 1);
    }
    int closed = 0;
    while (dataset->source.files[closed].fd >= 0) closed++;
    assert_true(closed < FILES);
    write_file("many/new", 40, 1); /* while the other is there, so that it is another inode */
    snprintf(name, sizeof name, "many/shard_%05d.bin", closed);
    assert_int_equal(unlink(at(name)), 0);
    assert_int_equal(bb_byte_source_read(&dataset->source, closed, 0, x, T, &err), BB_ERR_IO);
    assert_non_null(strstr(err.message, name));
    assert_int_equal(rename(at("many/new"), at(name)), 0);
    assert_int_equal(bb_byte_source_read(&dataset->source, closed, 0, x, T, &err), BB_ERR_DATA);
    assert_non_null(strstr(err.message, "the file was replaced"));
    bb_dataset_close(dataset);
}

static int make_files(void **state) {
    if (scratch_create(state) != 0) return -1;
    if (mkdir(at("empty_dir"), 0777) != 0 || mkdir(at("odd[1]dir"), 0777) != 0) return -1;
    write_file("shard_00000.bin", 300, 1);
    write_file("shard_00001.bin", 500, 2);
    write_file("shard_00002.bin", 77, 3);
    write_file("shard_00003.bin.part", 900, 4);
    write_file("val_00000.bin", 900, 5);
    write_file("other.bin", 400, 6);
    write_file("two.dat", 2, 7);
    write_file("odd[1]dir/shard_00000.bin", 60, 8);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_found),
        cmocka_unit_test(messages_say_what_is_wrong),
        cmocka_unit_test(short_shards_are_passed_over),
        cmocka_unit_test(batches_are_windows),
        cmocka_unit_test(windows_with_replacement_follow_the_old_rule),
        cmocka_unit_test(epochs_follow_the_rule),
        cmocka_unit_test(an_epoch_has_every_window_once),
        cmocka_unit_test(ranks_share_a_step),
        cmocka_unit_test(ranks_are_disjoint),
        cmocka_unit_test(a_position_resumes),
        cmocka_unit_test(a_stream_is_one_shard),
        cmocka_unit_test(a_window_may_be_one_byte),
        cmocka_unit_test(damage_while_open_is_an_error),
        cmocka_unit_test(more_files_than_are_held_open_give_the_same),
    };
    return cmocka_run_group_tests(tests, make_files, scratch_remove);
}
