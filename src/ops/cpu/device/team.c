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
    SPINS = 20000,    /* looks for work, some tenths of a millisecond, before a thread sleeps */
    REST_MIN = 1024,  /* runs that the caller does alone when it had to wait longer, over the threads that it does without */
    REST_MAX = 16384, /* and over their square */
    UNTIMED = 64,     /* looks */
    LATE_NS = 1000000,
    LATE_RUNS = 256,        /* runs in which a late one is forgotten; virtual machines have single ones */
    LATE_LIMIT = 4,         /* late ones before the caller goes on alone */
    FETCH_LINES = 8,        /* between two looks: as fast as memory gives them; Zen 4 drops what comes faster */
    FETCH_BYTES = 512 << 10 /* at most: of the second-level cache */
};

/* Units first .. end-1 as end << 32 | first, so that both change together. */
typedef struct share {
    _Alignas(LINE) atomic_uint_fast64_t range;
} share;

/* A line for what a run brings to the threads, one for what they answer. */
struct bb_team {
    _Alignas(LINE) atomic_uint run; /* how many there were; what follows is set before it changes */
    int threads, started;           /* started: besides the caller's */
    bb_team_work *work;             /* NULL: end */
    void *user;
    bb_team_fetch then;
    _Alignas(LINE) atomic_int working; /* besides the caller's */
    _Alignas(LINE) share *shares;      /* (threads) */
    pthread_t *handles;
    pthread_mutex_t lock; /* of those that sleep */
    pthread_cond_t woken;
    atomic_int sleeping;
    bool passive; /* waiting threads leave the processors to others */
    bb_team_rest rest;
};

typedef struct member {
    bb_team *team;
    int thread;
    int starter; /* the processor that started it */
} member;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t share_begin(int64_t units, int thread, int threads) { return units * thread / threads; }

/* A thread's share of what is read next, line by line. */
typedef struct fetching {
    const char *at, *end;
} fetching;

static fetching fetch_of(const bb_team *team, int thread) {
    const bb_team_fetch *f = &team->then;
    if (!f->data) return (fetching){NULL, NULL};
    int64_t begin = share_begin(f->units, thread, team->threads) * f->unit_bytes;
    int64_t end = share_begin(f->units, thread + 1, team->threads) * f->unit_bytes;
    if (end - begin > FETCH_BYTES) end = begin + FETCH_BYTES;
    return (fetching){(const char *)f->data + begin, (const char *)f->data + end};
}

/* Until there is another run than the one that was seen. */
static void await_run(bb_team *team, unsigned seen, fetching next) {
    for (int looks = 0; looks < (team->passive ? 1 : SPINS);) {
        if (atomic_load_explicit(&team->run, memory_order_acquire) != seen) return;
        relax();
        if (next.at < next.end)
            for (int i = 0; i < FETCH_LINES; i++, next.at += LINE) __builtin_prefetch(next.at, 0, 2);
        else
            looks++;
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->run) == seen) pthread_cond_wait(&team->woken, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
}

/* Where other threads still spin when this one is started, only the starter's own processor may look free, and the scheduler
 * can leave both there for tenths of a second. So it goes elsewhere first; where it may be stays as it was. */
static void leave(int processor) {
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
    leave(self.starter);
    unsigned seen = 0;
    fetching next = {NULL, NULL};
    for (;;) {
        await_run(team, seen, next);
        seen++;
        if (!team->work) return NULL;
        bb_team_work *work = team->work;
        next = fetch_of(team, self.thread); /* before `working` says that the run may be followed by another */
        work(team->user, team, self.thread);
        atomic_fetch_sub_explicit(&team->working, 1, memory_order_release);
    }
}

static void announce(bb_team *team) {
    atomic_fetch_add(&team->run, 1); /* before the look at who sleeps: who falls asleep now sees it */
    if (atomic_load(&team->sleeping) == 0) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->woken);
    pthread_mutex_unlock(&team->lock);
}

/* All or none: a thread that serves counts runs from the first one on. The program's signals stay with the other threads. */
static void start_threads(bb_team *team) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return;
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
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
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

/* True when that took so long that some thread can't have been on a processor. */
static bool wait_for_others(bb_team *team) {
    int64_t begin = 0;
    for (int looks = 0; atomic_load_explicit(&team->working, memory_order_acquire) > 0; looks++) {
        if (looks == UNTIMED) begin = bb_clock_ns();
        if (looks < SPINS && !team->passive)
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

void bb_team_run(bb_team *team, bool alone, int64_t units, bb_team_work *work, void *user, bb_team_fetch then) {
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
    team->then = then;
    atomic_store_explicit(&team->working, team->started, memory_order_relaxed);
    announce(team);
    work(user, team, 0);
    bb_team_rest_after(&team->rest, wait_for_others(team));
}

/* One end of a share; false where nothing is left of it. */
static bool take_from(share *s, bool last, int64_t *unit) {
    uint_fast64_t range = atomic_load_explicit(&s->range, memory_order_relaxed), rest;
    do {
        uint64_t first = range & 0xffffffff, end = range >> 32;
        if (first >= end) return false;
        *unit = (int64_t)(last ? end - 1 : first);
        rest = last ? (end - 1) << 32 | first : end << 32 | (first + 1);
    } while (!atomic_compare_exchange_weak_explicit(&s->range, &range, rest, memory_order_relaxed, memory_order_relaxed));
    return true;
}

int64_t bb_team_take(bb_team *team, int thread) {
    int64_t unit;
    if (take_from(&team->shares[thread], false, &unit)) return unit;
    for (int i = 1; i < team->threads; i++)
        if (take_from(&team->shares[(thread + i) % team->threads], true, &unit)) return unit;
    return -1;
}
