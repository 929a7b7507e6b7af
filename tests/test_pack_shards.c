// SPDX-License-Identifier: MIT
/* The output of a pack: shards, the validation split, the manifest; and that a stopped or failed pack leaves nothing. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <xxhash.h>

#include "pack_files.h"

#include "data/packer_dir.h"
#include "data/packer_job.h"
#include "data/packer_manifest.h"
#include "data/packer_shards.h"

static const char *inputs[1];
static uint8_t data[100003]; /* of the one input; it is prime */

static int make_input(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)bb_rng_below(3, BB_STREAM_TEST, i, 256);
    put_bytes("data.txt", data, sizeof data);
    static char path[512];
    snprintf(path, sizeof path, "%s", at("data.txt"));
    inputs[0] = path;
    return 0;
}

static json_t *read_manifest(const char *out) {
    char name[128];
    snprintf(name, sizeof name, "%s/manifest.json", out);
    json_error_t where;
    json_t *manifest = json_load_file(at(name), 0, &where);
    if (!manifest) fail_msg("%s: %s", name, where.text);
    return manifest;
}

static int64_t member(const json_t *object, const char *key) { return json_integer_value(json_object_get(object, key)); }

/* Every shard that the manifest names, checked against the file; returns their bytes. */
static int64_t check_shard_list(const json_t *manifest, const char *list, const char *out) {
    int64_t total = 0;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(manifest, list), i, entry) {
        char name[256], hash[17];
        snprintf(name, sizeof name, "%s/%s", out, json_string_value(json_object_get(entry, "name")));
        uint8_t *bytes = NULL;
        size_t size = 0;
        assert_int_equal(bb_file_read_all(at(name), 0, &bytes, &size, NULL), BB_OK);
        assert_int_equal(size, member(entry, "bytes"));
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)XXH3_64bits(bytes, size));
        assert_string_equal(hash, json_string_value(json_object_get(entry, "xxh3")));
        total += (int64_t)size;
        free(bytes);
    }
    return total;
}

static void shards_and_split_are_exact(void **state) {
    (void)state;
    const int64_t shard_bytes[] = {1, 7, 10, 50000, 100002, 100003, 1000000};
    const double fracs[] = {0, 1e-9, 0.25, 0.5, 1 - 1e-16};
    for (size_t s = 0; s < sizeof shard_bytes / sizeof *shard_bytes; s++)
        for (size_t f = 0; f < sizeof fracs / sizeof *fracs; f++) {
            /* Small shards get little data: each is flushed to disk. */
            int64_t total = shard_bytes[s] <= 10 ? 10 * shard_bytes[s] + 1 : (int64_t)sizeof data;
            put_bytes("data.txt", data, (size_t)total);
            pack_run run = new_run(inputs, 1, "out");
            run.options.shard_size_gb = (double)shard_bytes[s] * 1e-9;
            run.options.val_frac = fracs[f];
            run.options.overwrite = true;
            pack_ok(&run);
            int64_t val = (int64_t)(fracs[f] * (double)total);
            if (val == total) val--;
            assert_int_equal(run.result.bytes, total);
            assert_int_equal(run.result.val_bytes, val);
            assert_int_equal(run.result.shards, (total - val + shard_bytes[s] - 1) / shard_bytes[s]);
            assert_int_equal(run.result.val_shards, (val + shard_bytes[s] - 1) / shard_bytes[s]);
            assert_int_equal(count_names("out"), run.result.shards + run.result.val_shards + 1);
            size_t size;
            int count;
            uint8_t *bytes = read_shards("out", "shard", &size, &count);
            assert_int_equal(count, run.result.shards);
            assert_int_equal(size, total - val);
            assert_memory_equal(bytes, data, size);
            free(bytes);
            bytes = read_shards("out", "val", &size, &count);
            assert_int_equal(count, run.result.val_shards);
            assert_int_equal(size, val);
            assert_memory_equal(bytes, data + (total - val), size);
            free(bytes);
            json_t *manifest = read_manifest("out");
            assert_int_equal(check_shard_list(manifest, "shards", "out"), total - val);
            assert_int_equal(check_shard_list(manifest, "val_shards", "out"), val);
            json_decref(manifest);
        }
}

static void the_manifest_describes_the_pack(void **state) {
    (void)state;
    put("bad.json", "{oops}");
    put("b\xff.txt", "B");
    const char *three[] = {inputs[0], at("bad.json"), at("b\xff.txt"), inputs[0]};
    pack_run run = new_run(three, 4, "out");
    run.options.val_frac = 0.05;
    run.options.shard_size_gb = 5e-5;
    pack_ok(&run);
    json_t *manifest = read_manifest("out");
    assert_string_equal(json_string_value(json_object_get(manifest, "format")), "bitbyte-pack-1");
    assert_int_equal(member(manifest, "files"), 2);
    assert_int_equal(member(manifest, "documents"), 2);
    assert_int_equal(member(manifest, "bytes"), sizeof data + 2);
    assert_int_equal(member(manifest, "val_bytes"), run.result.val_bytes);
    assert_int_equal(member(manifest, "skipped_count"), 1);
    assert_int_equal(member(manifest, "duplicates"), 1);
    const json_t *skip = json_array_get(json_object_get(manifest, "skipped"), 0);
    assert_string_equal(json_string_value(json_object_get(skip, "path")), at("bad.json"));
    assert_non_null(strstr(json_string_value(json_object_get(skip, "reason")), "malformed JSON"));
    const json_t *list = json_object_get(manifest, "inputs");
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "path")), inputs[0]);
    assert_int_equal(member(json_array_get(list, 0), "bytes"), sizeof data);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "path")), at("b\\xff.txt"));
    const json_t *options = json_object_get(manifest, "options");
    assert_true(fabs(json_number_value(json_object_get(options, "val_frac")) - 0.05) < 1e-12);
    assert_int_equal(member(options, "sep_byte"), 0);
    assert_string_equal(json_string_value(json_array_get(json_object_get(options, "json_keys"), 1)), "story");
    json_decref(manifest);
}

static void the_same_input_gives_the_same_pack(void **state) {
    (void)state;
    bb_file_make_dirs(at("many"), NULL);
    for (int i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/%d.txt", i * 37 % 50); /* made in another order than they are packed */
        put_bytes(name, data + i, (size_t)(i * 101));
    }
    const char *many[] = {at("many")};
    for (int i = 0; i < 2; i++) {
        pack_run run = new_run(many, 1, i ? "two" : "one");
        run.options.val_frac = 0.3;
        run.options.shard_size_gb = 1.5e-5;
        pack_ok(&run);
    }
    assert_int_equal(count_names("one"), count_names("two"));
    DIR *folder = opendir(at("one"));
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        char name[300];
        uint8_t *bytes = NULL;
        size_t size = 0;
        snprintf(name, sizeof name, "one/%s", entry->d_name);
        assert_int_equal(bb_file_read_all(at(name), 0, &bytes, &size, NULL), BB_OK);
        snprintf(name, sizeof name, "two/%s", entry->d_name);
        assert_true(scratch_holds(at(name), bytes, size));
        free(bytes);
    }
    closedir(folder);
}

static void an_earlier_pack_is_kept_or_replaced(void **state) {
    (void)state;
    pack_run first = new_run(inputs, 1, "out");
    first.options.shard_size_gb = 1e-5;
    first.options.val_frac = 0.5;
    pack_ok(&first);
    assert_int_equal(count_names("out"), 6 + 6 + 1);
    put("out/notes.txt", "mine");
    put("small.txt", "small");
    const char *small[] = {at("small.txt")};
    pack_run again = new_run(small, 1, "out");
    pack_fails(&again, BB_ERR_ARGUMENT, "already holds a pack");
    assert_int_equal(count_names("out"), 6 + 6 + 2);
    again.options.overwrite = true;
    pack_ok(&again);
    expect_text("out", "small");
    assert_int_equal(count_names("out"), 3); /* the stale shards are gone, what is not ours stays */
    assert_int_equal(access(at("out/notes.txt"), F_OK), 0);

    /* A pack that fails leaves the earlier one as it was. */
    const char *absent[] = {at("absent")};
    pack_run failing = new_run(absent, 1, "out");
    failing.options.overwrite = true;
    pack_fails(&failing, BB_ERR_DATA, "1 skipped");
    expect_text("out", "small");
    json_decref(read_manifest("out"));
}

static void left_overs_of_a_killed_pack_are_removed(void **state) {
    (void)state;
    bb_file_make_dirs(at("out"), NULL);
    put("out/shard_00007.bin.part", "left over");
    put("out/val_00000.bin.part", "left over");
    put("out/manifest.json.tmp.12345", "left over");
    pack_run run = new_run(inputs, 1, "out");
    pack_ok(&run);
    expect_packed("out", data, sizeof data);
    assert_int_equal(count_names("out"), 2);
}

static void two_packs_at_once_are_refused(void **state) {
    (void)state;
    bb_file_make_dirs(at("out"), NULL);
    int lock = open(at("out"), O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    pack_run run = new_run(inputs, 1, "out");
    pack_fails(&run, BB_ERR_IO, "another pack is writing there");
    close(lock);
    pack_ok(&run);
}

static void a_stop_leaves_nothing(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        pack_run run = new_run(inputs, 1, "out");
        run.stop = 1;
        if (i) { /* a folder that was there stays, without anything new */
            bb_file_make_dirs(at("out"), NULL);
            put("out/notes.txt", "mine");
        }
        pack(&run);
        assert_int_equal(run.status, BB_ERR_INTERRUPTED);
        assert_int_equal(count_names("out"), i ? 1 : -1);
    }
}

/* A pipe that never ends: the pack writes shards until on_progress asks it to stop. */
static void a_stop_in_the_middle_leaves_nothing(void **state) {
    (void)state;
    assert_int_equal(mkfifo(at("pipe"), 0666), 0);
    pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        signal(SIGPIPE, SIG_IGN);
        int fd = open(at("pipe"), O_WRONLY);
        while (write(fd, data, sizeof data) > 0) usleep(200);
        _exit(0);
    }
    const char *pipes[] = {at("pipe")};
    pack_run run = new_run(pipes, 1, "out");
    run.options.shard_size_gb = 1e-4;
    run.options.val_frac = 0.5;
    run.stop_after_calls = 3;
    pack(&run);
    waitpid(writer, NULL, 0);
    assert_int_equal(run.status, BB_ERR_INTERRUPTED);
    assert_int_equal(run.progress_calls, 3);
    assert_int_equal(access(at("out"), F_OK), -1);
}

/* The same in another process, killed: what is left bears no final name, and the next pack works. */
static void a_kill_leaves_nothing_that_looks_whole(void **state) {
    (void)state;
    assert_int_equal(mkfifo(at("pipe"), 0666), 0);
    const char *pipes[] = {at("pipe")};
    pid_t packer = fork();
    assert_true(packer >= 0);
    if (packer == 0) {
        pack_run run = new_run(pipes, 1, "out");
        run.options.shard_size_gb = 1e-5;
        pack(&run);
        _exit(0);
    }
    int fd = open(at("pipe"), O_WRONLY);
    assert_int_equal(write(fd, data, sizeof data), sizeof data);
    for (int i = 0; i < 500 && count_names("out") < 2; i++) usleep(10000); /* shards are under way */
    kill(packer, SIGKILL);
    waitpid(packer, NULL, 0);
    close(fd);
    assert_true(count_names("out") >= 2);
    DIR *folder = opendir(at("out"));
    for (const struct dirent *entry; (entry = readdir(folder));)
        assert_int_not_equal(bb_pack_name_kind(entry->d_name), BB_PACK_NAME_WHOLE);
    closedir(folder);
    pack_run run = new_run(inputs, 1, "out");
    pack_ok(&run);
    expect_packed("out", data, sizeof data);
    assert_int_equal(count_names("out"), 2);
}

static void a_full_disk_leaves_nothing(void **state) {
    (void)state;
    struct rlimit old, small = {50000, 50000};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    pack_run run = new_run(inputs, 1, "out");
    pack(&run);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(run.status, BB_ERR_IO);
    assert_non_null(strstr(run.err.message, "shard_00000.bin: cannot write: File too large"));
    assert_int_equal(access(at("out"), F_OK), -1);
}

static void an_impossible_out_dir_is_an_error(void **state) {
    (void)state;
    pack_run run = new_run(inputs, 1, "data.txt");
    pack_fails(&run, BB_ERR_IO, "expected a directory");
    pack_run below = new_run(inputs, 1, "data.txt/out");
    pack_fails(&below, BB_ERR_IO, "data.txt");
}

static void too_many_shards_are_an_error(void **state) {
    (void)state;
    bb_pack_writer writer;
    bb_error err = {0};
    assert_int_equal(bb_pack_writer_open(scratch_dir, "shard", 10, &writer, &err), BB_OK);
    writer.count = 100000; /* as if they had been written, which takes long */
    assert_int_equal(bb_pack_writer_write(&writer, "x", 1, &err), BB_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "more than 100000 shards of 10 bytes"));
    bb_pack_writer_close(&writer, true);
}

static void names_of_a_pack_are_recognized(void **state) {
    (void)state;
    const char *whole[] = {"shard_00000.bin", "val_00001.bin", "shard_123456.bin", "manifest.json"};
    const char *partial[] = {"shard_00000.bin.part", "val_00001.bin.part", "manifest.json.tmp.7"};
    const char *other[] = {"shard_.bin",   "shard_00000.bin.gz", "my_shard_00000.bin",
                           "val_0001.bin", "manifest.jsonl",     "shard_0000x.bin"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) assert_int_equal(bb_pack_name_kind(whole[i]), BB_PACK_NAME_WHOLE);
    for (size_t i = 0; i < sizeof partial / sizeof *partial; i++)
        assert_int_equal(bb_pack_name_kind(partial[i]), BB_PACK_NAME_PARTIAL);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) assert_int_equal(bb_pack_name_kind(other[i]), BB_PACK_NAME_OTHER);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_input, empty_scratch)
    const struct CMUnitTest tests[] = {
        TEST(shards_and_split_are_exact),
        TEST(the_manifest_describes_the_pack),
        TEST(the_same_input_gives_the_same_pack),
        TEST(an_earlier_pack_is_kept_or_replaced),
        TEST(left_overs_of_a_killed_pack_are_removed),
        TEST(two_packs_at_once_are_refused),
        TEST(a_stop_leaves_nothing),
        TEST(a_stop_in_the_middle_leaves_nothing),
        TEST(a_kill_leaves_nothing_that_looks_whole),
        TEST(a_full_disk_leaves_nothing),
        TEST(an_impossible_out_dir_is_an_error),
        TEST(too_many_shards_are_an_error),
        TEST(names_of_a_pack_are_recognized),
    };
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
