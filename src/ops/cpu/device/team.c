// SPDX-License-Identifier: MIT
#include "ops/cpu/device/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

enum {
    LINE = 64,
    MAX_POLLS = 20000,  /* polls for work, some tenths of a millisecond, before a thread sleeps */
    REST_MIN = 1024,    /* over the number of threads: runs that the caller does alone after several late runs */
    REST_MAX = 16384,   /* the maximum, over the square of the number of threads */
    UNTIMED_POLLS = 64, /* polls before the clock is read */
    LATE_NS = 1000000,
    LATE_RUNS = 256,           /* runs after which one late run is forgotten; virtual machines have isolated ones */
    LATE_LIMIT = 4,            /* late runs before the caller continues alone */
    PREFETCH_LINES = 8,        /* between two polls: as fast as memory delivers them; Zen 4 drops prefetches that come faster */
    PREFETCH_BYTES = 512 << 10 /* maximum: part of the second-level cache */
};

/* Units first .. end-1 as end << 32 | first, so that both change atomically. */
typedef struct share {
    _Alignas(LINE) atomic_uint_fast64_t range;
} share;

/* One cache line for what a run tells the threads, one for what they answer. */
struct bb_team {
    _Alignas(LINE) atomic_uint run; /* number of runs started; the fields below are set before it changes */
    int threads, started;           /* started: without the caller's */
    bb_team_work *work;             /* NULL: exit */
    void *user;
    bb_team_prefetch next;
    _Alignas(LINE) atomic_int working; /* without the caller's */
    _Alignas(LINE) share *shares;      /* (threads) */
    pthread_t *handles;
    pthread_mutex_t lock; /* for sleeping threads */
    pthread_cond_t woken;
    atomic_int sleeping;
    bool passive; /* OMP_WAIT_POLICY=passive: waiting threads yield the processor */
    bb_team_rest rest;
};

typedef struct member {
    bb_team *team;
    int thread;
    int starter; /* the processor on which it was created */
} member;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t share_begin(int64_t units, int thread, int threads) { return units * thread / threads; }

/* The part of the next data that a thread prefetches, line by line. */
typedef struct prefetch_range {
    const char *at, *end;
} prefetch_range;

static prefetch_range prefetch_range_of(const bb_team *team, int thread) {
    const bb_team_prefetch *f = &team->next;
    if (!f->data) return (prefetch_range){NULL, NULL};
    int64_t begin = share_begin(f->units, thread, team->threads) * f->unit_bytes;
    int64_t end = share_begin(f->units, thread + 1, team->threads) * f->unit_bytes;
    if (end - begin > PREFETCH_BYTES) end = begin + PREFETCH_BYTES;
    return (prefetch_range){(const char *)f->data + begin, (const char *)f->data + end};
}

/* Returns when `run` differs from `seen`. */
static void await_run(bb_team *team, unsigned seen, prefetch_range next) {
    for (int polls = 0; polls < (team->passive ? 1 : MAX_POLLS);) {
        if (atomic_load_explicit(&team->run, memory_order_acquire) != seen) return;
        relax();
        if (next.at < next.end)
            for (int i = 0; i < PREFETCH_LINES; i++, next.at += LINE) __builtin_prefetch(next.at, 0, 2);
        else
            polls++;
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->run) == seen) pthread_cond_wait(&team->woken, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
}

/* If other threads still spin when this one is created, the scheduler may see only the creator's processor as free and leave
 * both threads on it for tenths of a second. Move elsewhere first; the affinity mask is restored. */
static void leave_processor(int processor) {
    cpu_set_t all, others;
    if (processor < 0 || sched_getcpu() != processor || sched_getaffinity(0, sizeof all, &all) != 0) return;
    others = all;
    CPU_CLR((size_t)processor, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof all, &all);
}

static void *serve(void *user) {
    member self = *(member *)user;
    bb_team *team = self.team;
    free(user);
    leave_processor(self.starter);
    unsigned seen = 0;
    prefetch_range next = {NULL, NULL};
    for (;;) {
        await_run(team, seen, next);
        seen++;
        if (!team->work) return NULL;
        bb_team_work *work = team->work;
        next = prefetch_range_of(team, self.thread); /* before `working` drops, after which the next run may begin */
        work(team->user, team, self.thread);
        atomic_fetch_sub_explicit(&team->working, 1, memory_order_release);
    }
}

static void announce(bb_team *team) {
    atomic_fetch_add(&team->run, 1); /* before reading `sleeping`: a thread that falls asleep now sees the new run */
    if (atomic_load(&team->sleeping) == 0) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->woken);
    pthread_mutex_unlock(&team->lock);
}

/* All threads are started at once, because each counts runs from the first. They block all signals, which stay with the
 * program's other threads. */
static void start_threads(bb_team *team) {
    sigset_t all, saved;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &saved) != 0) return;
    for (int t = 1; t < team->threads; t++) {
        member *m = malloc(sizeof *m);
        if (!m) break;
        *m = (member){team, t, sched_getcpu()};
        if (pthread_create(&team->handles[t], NULL, serve, m) != 0) {
            free(m);
            break;
        }
        team->started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

bb_team *bb_team_create(int threads) {
    bb_team *team = aligned_alloc(LINE, sizeof *team);
    if (!team) return NULL;
    memset(team, 0, sizeof *team);
    team->threads = threads;
    bb_team_rest_init(&team->rest, threads);
    team->shares = aligned_alloc(LINE, (size_t)threads * sizeof *team->shares);
    team->handles = calloc((size_t)threads, sizeof *team->handles);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->woken, NULL);
    const char *policy = getenv("OMP_WAIT_POLICY");
    team->passive = policy && (*policy == 'p' || *policy == 'P');
    if (team->shares && team->handles) return team;
    bb_team_free(team);
    return NULL;
}

void bb_team_free(bb_team *team) {
    if (!team) return;
    team->work = NULL;
    announce(team);
    for (int t = 1; t <= team->started; t++) pthread_join(team->handles[t], NULL);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->woken);
    free(team->shares);
    free(team->handles);
    free(team);
}

/* Returns true if it took so long that some thread cannot have been on a processor. */
static bool wait_for_others(bb_team *team) {
    int64_t begin = 0;
    for (int polls = 0; atomic_load_explicit(&team->working, memory_order_acquire) > 0; polls++) {
        if (polls == UNTIMED_POLLS) begin = bb_clock_ns();
        if (polls < MAX_POLLS && !team->passive)
            relax();
        else
            sched_yield();
    }
    return begin > 0 && bb_clock_ns() - begin > LATE_NS;
}

void bb_team_rest_init(bb_team_rest *rest, int threads) {
    *rest = (bb_team_rest){.length = REST_MIN / threads, .min = REST_MIN / threads, .max = REST_MAX / threads / threads};
}

bool bb_team_rest_next(bb_team_rest *rest) {
    if (rest->resting == 0) return false;
    rest->resting--;
    return true;
}

void bb_team_rest_after(bb_team_rest *rest, bool late) {
    if (!late) {
        if (rest->lateness > 0) rest->lateness--;
        if (rest->length > rest->min) rest->length--;
    } else if (rest->lateness <= (LATE_LIMIT - 2) * LATE_RUNS) {
        rest->lateness += LATE_RUNS;
    } else {
        rest->resting = rest->length;
        if (rest->length < rest->max) rest->length *= 2;
    }
}

void bb_team_run(bb_team *team, bool alone, int64_t units, bb_team_work *work, void *user, bb_team_prefetch next) {
    if (!alone && team->threads > 1 && team->started == 0) start_threads(team);
    if (!alone) alone = bb_team_rest_next(&team->rest);
    for (int t = 0; t < team->threads; t++) {
        uint64_t begin = (uint64_t)share_begin(units, t, team->threads),
                 end = (uint64_t)share_begin(units, t + 1, team->threads);
        atomic_store_explicit(&team->shares[t].range, end << 32 | begin, memory_order_relaxed);
    }
    if (alone || team->started == 0) {
        work(user, team, 0);
        return;
    }
    team->work = work;
    team->user = user;
    team->next = next;
    atomic_store_explicit(&team->working, team->started, memory_order_relaxed);
    announce(team);
    work(user, team, 0);
    bb_team_rest_after(&team->rest, wait_for_others(team));
}

/* Takes a unit from one end of a share; false if the share is empty. */
static bool take_unit(share *s, bool last, int64_t *unit) {
    uint_fast64_t range = atomic_load_explicit(&s->range, memory_order_relaxed), remaining;
    do {
        uint64_t first = range & 0xffffffff, end = range >> 32;
        if (first >= end) return false;
        *unit = (int64_t)(last ? end - 1 : first);
        remaining = last ? (end - 1) << 32 | first : end << 32 | (first + 1);
    } while (!atomic_compare_exchange_weak_explicit(&s->range, &range, remaining, memory_order_relaxed, memory_order_relaxed));
    return true;
}

int64_t bb_team_next_unit(bb_team *team, int thread) {
    int64_t unit;
    if (take_unit(&team->shares[thread], false, &unit)) return unit;
    for (int i = 1; i < team->threads; i++)
        if (take_unit(&team->shares[(thread + i) % team->threads], true, &unit)) return unit;
    return -1;
}
