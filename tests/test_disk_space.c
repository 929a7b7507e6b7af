// SPDX-License-Identifier: MIT
/* How many checkpoints a run holds at once, and the messages if they do not fit. */
#include "training/disk_space.h"

#include <sys/resource.h>

#include "scratch.h"
#include "support.h"

static void the_peak_counts_checkpoints_kept_at_once(void **state) {
    (void)state;
    const struct {
        bb_save_plan plan;
        int64_t peak;
    } cases[] = {
        {{.end = 10}, 1},                                          /* the last alone */
        {{.end = 10, .save_every = 3}, 4},                         /* 3, 6, 9, 10 */
        {{.end = 10, .save_every = 5}, 2},                         /* the last is not saved twice */
        {{.first_step = 6, .end = 10, .save_every = 3}, 2},        /* 9, 10 */
        {{.end = 100, .save_every = 5, .keep = {.newest = 1}}, 2}, /* one that is replaced */
        {{.end = 100, .save_every = 5, .keep = {.newest = 3}}, 4},
        {{.end = 10, .save_every = 5, .keep = {.newest = 3}}, 2}, /* there are no more */
        {{.end = 100, .save_every = 5, .keep = {.newest = 3}, .existing = 2}, 2},
        {{.end = 100, .save_every = 5, .keep = {.newest = 3}, .existing = 9}, 1},
        {{.end = 100, .save_every = 4, .keep = {.newest = 1, .every = 10}}, 6}, /* 20, 40, 60, 80, two more */
        {{.end = 100, .keep = {.newest = 3}, .saves_by_time = true}, 4},
        {{.end = 100, .save_every = 10, .best_every = 15}, 13},                     /* 10, 20, …, 100; 15, 45, 75 */
        {{.end = 100, .save_every = 5, .best_every = 5, .keep = {.newest = 1}}, 3}, /* one that is replaced, and the best */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(bb_save_plan_peak(&cases[i].plan), cases[i].peak);
}

static void lack_of_room_is_a_warning_or_an_error(void **state) {
    (void)state;
    char warning[1000], dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("."));
    assert_ok(bb_disk_space_check(dir, 1, 1, warning, sizeof warning, &test_error));
    assert_string_equal(warning, "");
    assert_ok(bb_disk_space_check(dir, 1000, INT64_MAX, warning, sizeof warning, &test_error));
    assert_non_null(strstr(warning, "a checkpoint takes 1.0 KB and up to 9223372036854775807 are kept at once"));
    assert_fails(bb_disk_space_check(dir, UINT64_MAX, 1, warning, sizeof warning, &test_error), BB_ERR_IO, "are free");
    assert_ok(bb_disk_space_check(scratch_path("nowhere"), 1, 1, warning, sizeof warning, &test_error)); /* not known */
}

static void a_limit_on_file_sizes_is_an_error(void **state) {
    (void)state;
    struct rlimit before, small;
    char warning[1000], dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("."));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bb_status fits = bb_disk_space_check(dir, 4000, 1, warning, sizeof warning, &test_error);
    bb_status too_large = bb_disk_space_check(dir, 4001, 1, warning, sizeof warning, &test_error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0); /* before anything is written to a log */
    assert_int_equal(fits, BB_OK);
    assert_int_equal(too_large, BB_ERR_IO);
    assert_message(test_error, "the file size limit is 4.0 KB: raise it (ulimit -f)");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_peak_counts_checkpoints_kept_at_once),
                                       cmocka_unit_test(lack_of_room_is_a_warning_or_an_error),
                                       cmocka_unit_test(a_limit_on_file_sizes_is_an_error)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
