// SPDX-License-Identifier: MIT
/* Which validation was the best, and how many came after it. */
#include <math.h>

#include "scratch.h"
#include "support.h"
#include "training/run_metrics.h"

static void best_and_count_are_kept(void **state) {
    (void)state;
    bb_val_history h;
    bb_val_history_clear(&h);
    assert_true(h.best_step == -1 && h.last_step == -1 && isnan(h.best_bpb));
    assert_false(bb_val_history_add(&h, 10, NAN)); /* counts, and is never the best */
    assert_true(h.best_step == -1 && h.last_step == 10 && h.since_best == 1);
    assert_true(bb_val_history_add(&h, 20, 3.0));
    assert_true(h.best_step == 20 && h.since_best == 0);
    assert_false(bb_val_history_add(&h, 30, 3.0)); /* equal is not better */
    assert_false(bb_val_history_add(&h, 40, INFINITY));
    assert_true(h.best_step == 20 && h.last_step == 40 && h.since_best == 2);
    assert_true(bb_val_history_add(&h, 50, 2.5));
    assert_true(h.best_step == 50 && h.since_best == 0 && fabs(h.best_bpb - 2.5) < 1e-12);
}

/* A resumed run reads what metrics.jsonl has, nine digits, and must decide the same. */
static void values_are_rounded_as_in_metrics(void **state) {
    (void)state;
    bb_val_history h;
    bb_val_history_clear(&h);
    assert_true(bb_val_history_add(&h, 1, 2.00000000449));
    assert_true(h.best_bpb <= 2.0 && h.best_bpb >= 2.0);
    assert_false(bb_val_history_add(&h, 2, 1.99999999951)); /* 2.00000000 there, too */
    assert_true(bb_val_history_add(&h, 3, 1.99999999));
    assert_true(h.best_step == 3);
}

static void history_is_read_from_metrics(void **state) {
    (void)state;
    static const char lines[] = "{\"step\":5,\"loss\":2.0,\"bpb\":1.0}\n"
                                "{\"step\":5,\"val_bpb\":3.5}\n"
                                "{\"step\":10,\"val_bpb\":3.25,\"best_step\":10,\"patience_left\":2}\n"
                                "not JSON\n"
                                "{\"step\":15,\"val_bpb\":null}\n"
                                "{\"step\":20,\"val_bpb\":3.0}\n"
                                "{\"step\":25,\"val_bpb\":1."; /* a killed process was in the middle of it */
    bb_val_history h;
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("."));
    assert_ok(bb_run_metrics_history(dir, 100, &h, &test_error)); /* there is no file yet */
    assert_int_equal(h.last_step, -1);
    FILE *f = fopen(scratch_path("metrics.jsonl"), "wb");
    assert_non_null(f);
    fputs(lines, f);
    fclose(f);
    assert_ok(bb_run_metrics_history(dir, 100, &h, &test_error));
    assert_true(h.last_step == 20 && h.best_step == 20 && h.since_best == 0);
    assert_ok(bb_run_metrics_history(dir, 15, &h, &test_error)); /* resumed from step 15 */
    assert_true(h.last_step == 15 && h.best_step == 10 && h.since_best == 1);
    assert_ok(bb_run_metrics_history(dir, 4, &h, &test_error));
    assert_true(h.last_step == -1 && h.best_step == -1 && h.since_best == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(best_and_count_are_kept),
                                       cmocka_unit_test(values_are_rounded_as_in_metrics),
                                       cmocka_unit_test(history_is_read_from_metrics)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
