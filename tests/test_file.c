// SPDX-License-Identifier: MIT
/* Reads at offsets, whole reads, and writes that leave either the complete new file or the old one, whatever fails in
 * between. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/file.h"
#include "scratch.h"
#include "support.h"

/* ---- A system that fails on request: these stand in for the C library's in this program ---- */

static struct {
    size_t largest_write;   /* 0: as asked */
    int interruptions;      /* this many calls of write and fsync fail with EINTR first */
    int64_t disk_left;      /* bytes until ENOSPC; -1: enough */
    int fsync_error;        /* 0: none */
    int rename_error;       /* 0: none */
    int fsyncs, dir_fsyncs; /* seen, of files and of folders */
} faults;

static void no_faults(void) {
    memset(&faults, 0, sizeof faults);
    faults.disk_left = -1;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fd > 2) {
        if (faults.interruptions > 0) {
            faults.interruptions--;
            errno = EINTR;
            return -1;
        }
        if (faults.largest_write && size > faults.largest_write) size = faults.largest_write;
        if (faults.disk_left == 0) {
            errno = ENOSPC;
            return -1;
        }
        if (faults.disk_left > 0 && (int64_t)size > faults.disk_left) size = (size_t)faults.disk_left;
        if (faults.disk_left > 0) faults.disk_left -= (int64_t)size;
    }
    return syscall(SYS_write, fd, data, size);
}

int fsync(int fd) {
    struct stat st;
    if (faults.interruptions > 0) {
        faults.interruptions--;
        errno = EINTR;
        return -1;
    }
    bool is_dir = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    faults.fsyncs += !is_dir;
    faults.dir_fsyncs += is_dir;
    if (faults.fsync_error) {
        errno = faults.fsync_error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
    if (faults.rename_error) {
        errno = faults.rename_error;
        return -1;
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Each test has a folder of its own. */
static int setup(void **state) {
    no_faults();
    return scratch_create(state);
}

static void read_at_gives_the_bytes(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    struct stat st;
    int fd;
    char bytes[5] = "";
    assert_true(scratch_write(path, "some bytes", 10));
    assert_ok(bb_file_open(path, &fd, &st, &test_error));
    assert_int_equal(st.st_size, 10);
    assert_ok(bb_file_read_at(fd, path, 5, bytes, 5, &test_error));
    assert_memory_equal(bytes, "bytes", 5);
    assert_fails(bb_file_read_at(fd, path, 6, bytes, 5, &test_error), BB_ERR_DATA, "expected 1 more bytes at byte 10");
    close(fd);
}

static void open_takes_regular_files_only(void **state) {
    (void)state;
    struct stat st;
    int fd;
    assert_fails(bb_file_open(scratch_path("absent"), &fd, &st, &test_error), BB_ERR_IO, scratch_path("absent"));
    assert_message(test_error, "No such file");
    assert_fails(bb_file_open(scratch_dir, &fd, &st, &test_error), BB_ERR_IO, scratch_dir);
    assert_message(test_error, "found a directory");
    assert_fails(bb_file_open("/dev/null", &fd, &st, &test_error), BB_ERR_IO, "found a device");
    assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
    assert_int_equal(bb_file_open(scratch_path("fifo"), &fd, &st, &test_error), BB_ERR_IO); /* and does not wait for a writer */
    assert_message(test_error, "found a pipe");
}

static void read_all_reads_all(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    uint8_t *data = NULL, big[200000];
    size_t size = 0;
    for (size_t i = 0; i < sizeof big; i++) big[i] = (uint8_t)(i * 7 + i / 251);
    static const size_t sizes[] = {0, 1, 65534, 65535, 65536, 65537, sizeof big};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_true(scratch_write(path, big, sizes[i]));
        assert_ok(bb_file_read_all(path, sizes[i], &data, &size, &test_error));
        assert_int_equal(size, sizes[i]);
        assert_memory_equal(data, big, size);
        assert_int_equal(data[size], 0);
        free(data);
    }
    data = NULL;
    assert_fails(bb_file_read_all(path, sizeof big - 1, &data, &size, &test_error), BB_ERR_FORMAT, path);
    assert_message(test_error, "at most 199999 bytes");
    assert_fails(bb_file_read_all(scratch_dir, 0, &data, &size, &test_error), BB_ERR_IO, "Is a directory");
    assert_fails(bb_file_read_all(scratch_path("absent"), 0, &data, &size, &test_error), BB_ERR_IO, "No such file");
    assert_null(data);
}

static void replace_is_durable(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    assert_ok(bb_file_replace(path, "one", 3, &test_error));
    assert_true(scratch_holds(path, "one", 3));
    assert_int_equal(faults.fsyncs, 1);
    assert_int_equal(faults.dir_fsyncs, 1);
    assert_ok(bb_file_replace(path, "second", 6, &test_error));
    assert_true(scratch_holds(path, "second", 6));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void relative_names_work(void **state) {
    (void)state;
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(scratch_dir), 0);
    bb_status status = bb_file_replace("f", "x", 1, &test_error);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, BB_OK);
    assert_int_equal(faults.dir_fsyncs, 1);
    assert_true(scratch_holds(scratch_path("f"), "x", 1));
}

static void nothing_shows_before_commit(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    bb_file_writer w;
    assert_true(scratch_write(path, "old", 3));
    assert_ok(bb_file_writer_open(path, &w, &test_error));
    assert_ok(bb_file_writer_write(&w, "new ", 4, &test_error));
    assert_ok(bb_file_writer_write(&w, "text", 4, &test_error));
    assert_int_equal(w.written, 8);
    assert_true(scratch_holds(path, "old", 3));
    assert_int_equal(scratch_count_entries(scratch_dir), 2);
    assert_ok(bb_file_writer_commit(&w, &test_error));
    assert_true(scratch_holds(path, "new text", 8));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
    bb_file_writer_abort(&w); /* safe after commit */
    assert_true(scratch_holds(path, "new text", 8));

    assert_ok(bb_file_writer_open(path, &w, &test_error));
    assert_ok(bb_file_writer_write(&w, "third", 5, &test_error));
    bb_file_writer_abort(&w);
    assert_true(scratch_holds(path, "new text", 8));
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void short_and_interrupted_writes_go_on(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    char data[1000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)i;
    faults.largest_write = 7;
    faults.interruptions = 5;
    assert_ok(bb_file_replace(path, data, sizeof data, &test_error));
    assert_true(scratch_holds(path, data, sizeof data));
    bb_file_writer w;
    assert_ok(bb_file_writer_open(path, &w, &test_error));
    assert_ok(bb_file_writer_write(&w, data, 10, &test_error));
    faults.interruptions = 3; /* of fsync */
    assert_ok(bb_file_writer_commit(&w, &test_error));
    assert_int_equal(faults.interruptions, 0);
    assert_true(scratch_holds(path, data, 10));
}

/* After a failure of any kind: the status, the path and the reason; the old file; nothing else in the folder. */
static void expect_failed_replace(const char *path, size_t size, const char *reason) {
    char *data = calloc(1, size);
    assert_non_null(data);
    assert_true(scratch_write(path, "old", 3));
    bb_status status = bb_file_replace(path, data, size, &test_error);
    no_faults();
    free(data);
    assert_int_equal(status, BB_ERR_IO);
    assert_int_equal(test_error.code, BB_ERR_IO);
    assert_message(test_error, path);
    assert_message(test_error, reason);
    assert_true(scratch_holds(path, "old", 3));
}

static void failures_leave_the_old_file(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    for (int64_t room = 0; room < 100; room += 33) {
        faults.disk_left = room;
        faults.largest_write = 10;
        expect_failed_replace(path, 100, "No space left on device");
    }
    faults.fsync_error = EIO;
    expect_failed_replace(path, 100, "Input/output error");
    faults.rename_error = EACCES;
    expect_failed_replace(path, 100, "Permission denied");
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void a_failed_writer_stays_failed(void **state) {
    (void)state;
    const char *path = scratch_path("f");
    bb_file_writer w;
    assert_ok(bb_file_writer_open(path, &w, &test_error));
    faults.disk_left = 0;
    assert_int_equal(bb_file_writer_write(&w, "abc", 3, &test_error), BB_ERR_IO);
    no_faults();
    assert_int_equal(bb_file_writer_write(&w, "abc", 3, &test_error), BB_ERR_INTERNAL);
    assert_int_equal(bb_file_writer_commit(&w, &test_error), BB_ERR_INTERNAL);
    bb_file_writer_abort(&w);
    assert_int_equal(scratch_count_entries(scratch_dir), 0);
}

/* The system's own limit on the size of a file, met without root. */
static void a_limit_on_file_sizes_is_an_error(void **state) {
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_failed_replace(scratch_path("f"), 10000, "File too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(scratch_count_entries(scratch_dir), 1);
}

static void a_full_disk_is_an_error(void **state) {
    (void)state;
    const char *disk = scratch_path("disk");
    if (!scratch_mount_disk(disk, 64)) skip();
    expect_failed_replace(scratch_path("disk/f"), 100000, "No space left on device");
    int entries = scratch_count_entries(disk);
    assert_true(scratch_unmount_disk(disk));
    assert_int_equal(entries, 1);
}

static void places_that_cannot_be_written_are_errors(void **state) {
    (void)state;
    bb_file_writer w;
    assert_fails(bb_file_writer_open(scratch_path("absent/f: cannot create: "), &w, &test_error), BB_ERR_IO, "absent/f");
    assert_message(test_error, "No such file");
    bb_file_writer_abort(&w); /* safe after a failed open */
    assert_fails(bb_file_writer_open(scratch_dir, &w, &test_error), BB_ERR_IO, "found a directory");
    assert_fails(bb_file_writer_open("/dev/null", &w, &test_error), BB_ERR_IO, "found a device");
    assert_int_equal(symlink("nowhere", scratch_path("dangling")), 0);
    assert_fails(bb_file_writer_open(scratch_path("dangling"), &w, &test_error), BB_ERR_IO, "dangling");
}

static void links_are_followed(void **state) {
    (void)state;
    struct stat st;
    assert_ok(bb_file_make_dirs(scratch_path("real"), &test_error));
    assert_true(scratch_write(scratch_path("real/f"), "old", 3));
    assert_int_equal(symlink("real/f", scratch_path("link")), 0);
    assert_ok(bb_file_replace(scratch_path("link"), "new", 3, &test_error));
    assert_int_equal(lstat(scratch_path("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_true(scratch_holds(scratch_path("real/f"), "new", 3));
}

/* A process killed while writing leaves its temporary file; a later one of the same number must not fail over it, nor follow a
 * link that someone put there. */
static void a_stale_temporary_file_does_no_harm(void **state) {
    (void)state;
    char stale[600];
    (void)snprintf(stale, sizeof stale, "%s.tmp.%ld", scratch_path("f"), (long)getpid());
    assert_true(scratch_write(scratch_path("victim"), "keep", 4));
    assert_int_equal(symlink(scratch_path("victim"), stale), 0);
    assert_ok(bb_file_replace(scratch_path("f"), "new", 3, &test_error));
    assert_true(scratch_holds(scratch_path("f"), "new", 3));
    assert_true(scratch_holds(scratch_path("victim"), "keep", 4));
    assert_int_equal(scratch_count_entries(scratch_dir), 2);
}

static void make_dirs_makes_all_on_the_way(void **state) {
    (void)state;
    struct stat st;
    for (int again = 0; again < 2; again++) assert_ok(bb_file_make_dirs(scratch_path("a/b//c/"), &test_error));
    assert_int_equal(stat(scratch_path("a/b/c"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_ok(bb_file_make_dirs("/", &test_error));
    assert_int_equal(bb_file_make_dirs("", &test_error), BB_ERR_ARGUMENT);
    assert_true(scratch_write(scratch_path("a/file"), "x", 1));
    assert_fails(bb_file_make_dirs(scratch_path("a/file"), &test_error), BB_ERR_IO,
                 "a/file: expected a directory, found a regular file");
    assert_fails(bb_file_make_dirs(scratch_path("a/file/d"), &test_error), BB_ERR_IO, "a/file: expected a directory");
    assert_fails(bb_file_make_dirs("/proc/no-such-folder", &test_error), BB_ERR_IO,
                 "/proc/no-such-folder: cannot create the directory");
}

static void join_puts_one_slash(void **state) {
    (void)state;
    static const char *const cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *joined = bb_file_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
}

#define file_test(f) cmocka_unit_test_setup_teardown(f, setup, scratch_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        file_test(read_at_gives_the_bytes),
        file_test(open_takes_regular_files_only),
        file_test(read_all_reads_all),
        file_test(replace_is_durable),
        file_test(relative_names_work),
        file_test(nothing_shows_before_commit),
        file_test(short_and_interrupted_writes_go_on),
        file_test(failures_leave_the_old_file),
        file_test(a_failed_writer_stays_failed),
        file_test(a_limit_on_file_sizes_is_an_error),
        file_test(a_full_disk_is_an_error),
        file_test(places_that_cannot_be_written_are_errors),
        file_test(links_are_followed),
        file_test(a_stale_temporary_file_does_no_harm),
        file_test(make_dirs_makes_all_on_the_way),
        file_test(join_puts_one_slash),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
