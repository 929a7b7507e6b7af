// SPDX-License-Identifier: MIT
/* The cpu backend's team: every unit is taken once, by any thread, and all are done when a run returns. Nothing here depends on
 * thread scheduling: threads wait for the events that they need. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* after the headers that it needs */

#include "ops/cpu/device/team.h"

enum { MAX_UNITS = 4000, MAX_THREADS = 5 };

typedef struct tally {
    int taken[MAX_UNITS]; /* plain: a unit is one thread's alone */
    atomic_int threads;
    int sums[MAX_THREADS];
} tally;

static void count_units(void *user, bb_team *team, int thread) {
    tally *t = user;
    atomic_fetch_add(&t->threads, 1);
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) {
        t->taken[i]++;
        t->sums[thread]++;
    }
}

/* Returns how many threads there were: the caller may have been alone after late runs. */
static int check_run(bb_team *team, int threads, bool alone, int64_t units, bb_team_prefetch then) {
    static tally t;
    memset(&t, 0, sizeof t);
    bb_team_run(team, alone, units, count_units, &t, then);
    int all = 0, there = atomic_load(&t.threads);
    assert_true(there == 1 || (!alone && there == threads));
    for (int64_t i = 0; i < units; i++) assert_int_equal(t.taken[i], 1);
    for (int i = 0; i < threads; i++) all += t.sums[i];
    assert_int_equal(all, units);
    return there;
}

static void every_unit_is_done_once(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 3, 7, 64, 1000, MAX_UNITS};
    static uint8_t memory[100000];
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        bb_team *team = bb_team_create(threads);
        assert_non_null(team);
        assert_int_equal(check_run(team, threads, false, 100, (bb_team_prefetch){0}), threads);
        for (int round = 0; round < 30; round++)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
                bb_team_prefetch then = {round % 2 ? memory : NULL, 100, 1000};
                check_run(team, threads, (round + (int)i) % 5 == 0, counts[i], then);
            }
        bb_team_free(team);
    }
}

typedef struct stall {
    int slow; /* this thread takes one unit, and then waits until all others are done */
    int64_t units;
    atomic_int taken, slow_took;
} stall;

static void stall_one(void *user, bb_team *team, int thread) {
    stall *s = user;
    if (thread != s->slow)
        while (atomic_load(&s->slow_took) == 0) usleep(50);
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) {
        atomic_fetch_add(&s->taken, 1);
        if (thread != s->slow) continue;
        atomic_fetch_add(&s->slow_took, 1);
        while (atomic_load(&s->taken) < s->units) usleep(50);
    }
}

/* The share of a thread that is kept from its processor is done by the others. */
static void the_share_of_a_stalled_thread_is_done(void **state) {
    (void)state;
    for (int threads = 2; threads <= MAX_THREADS; threads++)
        for (int slow = 0; slow < threads; slow++) {
            stall s = {.slow = slow, .units = 1000};
            bb_team *team = bb_team_create(threads); /* a team's first run asks all threads */
            bb_team_run(team, false, s.units, stall_one, &s, (bb_team_prefetch){0});
            assert_int_equal(atomic_load(&s.taken), s.units);
            assert_int_equal(atomic_load(&s.slow_took), 1);
            bb_team_free(team);
        }
}

/* Longer than a thread looks for work: it sleeps, and is woken, or ended. */
static void a_sleeping_thread_is_woken(void **state) {
    (void)state;
    bb_team *team = bb_team_create(3);
    for (int round = 0; round < 3; round++) {
        check_run(team, 3, false, 100, (bb_team_prefetch){0});
        usleep(50000);
    }
    bb_team_free(team);
    bb_team_free(bb_team_create(4)); /* never used */
    bb_team_free(NULL);
}

/* Runs that the caller does alone from here on, until the others are asked again. */
static int rest_of(bb_team_rest *rest) {
    int runs = 0;
    while (bb_team_rest_next(rest)) runs++;
    return runs;
}

/* Single late runs are forgotten; several are followed by a rest, each twice as long as the one before, up to a limit. */
static void late_runs_are_followed_by_a_rest(void **state) {
    (void)state;
    bb_team_rest rest;
    bb_team_rest_init(&rest, 2);
    for (int i = 0; i < 10; i++) {
        bb_team_rest_after(&rest, true);
        assert_int_equal(rest_of(&rest), 0);
        for (int run = 0; run < 256; run++) bb_team_rest_after(&rest, false);
    }
    for (int i = 0; i < 3; i++) {
        bb_team_rest_after(&rest, true);
        assert_int_equal(rest_of(&rest), 0);
    }
    for (int length = 512; length <= 4096; length *= 2) {
        bb_team_rest_after(&rest, true);
        assert_int_equal(rest_of(&rest), length);
    }
    bb_team_rest_after(&rest, true);
    assert_int_equal(rest_of(&rest), 4096);
    /* with runs in time it becomes short again */
    for (int run = 0; run < 4096; run++) bb_team_rest_after(&rest, false);
    for (int i = 0; i < 4; i++) bb_team_rest_after(&rest, true);
    assert_int_equal(rest_of(&rest), 512);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_is_done_once), cmocka_unit_test(the_share_of_a_stalled_thread_is_done),
        cmocka_unit_test(a_sleeping_thread_is_woken), cmocka_unit_test(late_runs_are_followed_by_a_rest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
