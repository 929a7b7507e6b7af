// SPDX-License-Identifier: MIT
/* The cpu backend's team: every unit is taken once, by whichever thread, and all is done when a run returns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* after those that it needs */

#include "ops/cpu/device/team.h"

enum { MOST_UNITS = 4000, MOST_THREADS = 5 };

typedef struct tally {
    int taken[MOST_UNITS]; /* plain: a unit is one thread's alone */
    atomic_int threads;
    int64_t slow; /* this thread takes its time; -1: none does */
    int sums[MOST_THREADS];
} tally;

static void count_units(void *user, bb_team *team, int thread) {
    tally *t = user;
    atomic_fetch_add(&t->threads, 1);
    for (int64_t i = bb_team_take(team, thread); i >= 0; i = bb_team_take(team, thread)) {
        t->taken[i]++;
        t->sums[thread]++;
        if (thread == t->slow) usleep(200);
    }
}

/* Returns how many threads there were: where the machine has other work, the caller may have been alone. */
static int check_run(bb_team *team, int threads, bool alone, int64_t units, int64_t slow, bb_team_fetch then) {
    static tally t;
    memset(&t, 0, sizeof t);
    t.slow = slow;
    bb_team_run(team, alone, units, count_units, &t, then);
    int all = 0, there = atomic_load(&t.threads);
    assert_true(there == 1 || (!alone && there == threads));
    for (int64_t i = 0; i < units; i++) assert_int_equal(t.taken[i], 1);
    for (int i = 0; i < threads; i++) all += t.sums[i];
    assert_int_equal(all, units);
    /* who is slow is helped */
    if (slow >= 0 && units >= 1000 && there > 1) assert_true(t.sums[slow] < units / threads);
    return there;
}

static void test_units(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 3, 7, 64, 1000, MOST_UNITS};
    static uint8_t memory[100000];
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        bb_team *team = bb_team_create(threads);
        assert_non_null(team);
        assert_int_equal(check_run(team, threads, false, 100, -1, (bb_team_fetch){0}), threads);
        for (int round = 0; round < 30; round++)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
                bb_team_fetch then = {round % 2 ? memory : NULL, 100, 1000};
                check_run(team, threads, (round + (int)i) % 5 == 0, counts[i], -1, then);
            }
        for (int slow = 0; slow < threads; slow++) check_run(team, threads, false, 1000, slow, (bb_team_fetch){0});
        bb_team_free(team);
    }
}

/* Longer than a thread looks for work: it sleeps, and is woken, or ended. */
static void test_sleep(void **state) {
    (void)state;
    bb_team *team = bb_team_create(3);
    for (int round = 0; round < 3; round++) {
        check_run(team, 3, false, 100, -1, (bb_team_fetch){0});
        usleep(50000);
    }
    bb_team_free(team);
    bb_team_free(bb_team_create(4)); /* never used */
    bb_team_free(NULL);
}

static void rest_on_threads(void *user, bb_team *team, int thread) {
    (void)user;
    (void)team;
    if (thread > 0) usleep(50000);
}

/* After runs that a thread kept waiting the caller does some alone, and then asks the others again. */
static void test_rest(void **state) {
    (void)state;
    bb_team *team = bb_team_create(2);
    int tries = 0; /* where the caller is kept from its processor too, it doesn't see that the other one was */
    do {
        assert_true(++tries < 100);
        for (int i = 0; i < 4; i++) bb_team_run(team, false, 2, rest_on_threads, NULL, (bb_team_fetch){0});
    } while (check_run(team, 2, false, 100, -1, (bb_team_fetch){0}) != 1);
    int runs = 1;
    while (check_run(team, 2, false, 100, -1, (bb_team_fetch){0}) == 1) assert_true(++runs < 10000);
    bb_team_free(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_units), cmocka_unit_test(test_sleep), cmocka_unit_test(test_rest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
