// SPDX-License-Identifier: MIT
#include "training/saver.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"

struct bb_saver {
    const bb_model *model;
    const bb_optimizer *optimizer;
    const bb_run_dir *dir;
    bb_checkpoint_image *image;
    bb_saver_way way;
    bb_saver_saved on_saved;
    void *user;
    /* of the save under way */
    bool under_way;
    int64_t step;
    bb_keep keep;
    char *path;
    double paused_seconds, began;
    pthread_t thread;
    pthread_mutex_t lock; /* of is_copied */
    pthread_cond_t changed;
    bool is_copied; /* or never will be */
    /* by the thread; read when it has ended */
    atomic_bool ended;
    bb_status status;
    bb_error error;
    double finished; /* when it was on disk */
};

bb_status bb_saver_create(const bb_model *model, const bb_optimizer *optimizer, const bb_run_dir *dir,
                          const bb_saver_options *options, bb_saver **out, bb_error *err) {
    *out = NULL;
    bb_saver *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for saving");
    s->model = model;
    s->optimizer = optimizer;
    s->dir = dir;
    s->on_saved = options->on_saved;
    s->user = options->user;
    s->is_copied = true;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->way = options->way;
    bb_status status = bb_checkpoint_image_create(model, optimizer, s->way == BB_SAVER_COPIES, &s->image, err);
    if (status == BB_ERR_MEMORY && s->way == BB_SAVER_COPIES) {
        s->way = BB_SAVER_READS;
        status = bb_checkpoint_image_create(model, optimizer, false, &s->image, err);
    }
    if (s->way == BB_SAVER_READS && !bb_checkpoint_is_here(model, optimizer)) s->way = BB_SAVER_WAITS;
    if (status == BB_OK)
        *out = s;
    else
        bb_saver_free(s);
    return status;
}

bb_saver_way bb_saver_way_used(const bb_saver *saver) { return saver->way; }

static void set_copied(bb_saver *s, bool is_copied) {
    pthread_mutex_lock(&s->lock);
    s->is_copied = is_copied;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void is_read(void *saver) { set_copied(saver, true); }

static bb_status write_checkpoint(bb_saver *s, bb_error *err) {
    if (s->way == BB_SAVER_COPIES) {
        bb_checkpoint_image_copy(s->image, s->model, s->optimizer);
        set_copied(s, true);
    }
    bb_status status = bb_checkpoint_image_write(s->image, s->path, is_read, s, err);
    set_copied(s, true); /* also where it failed before it read */
    if (status != BB_OK) return status;
    return bb_run_dir_checkpoint_saved(s->dir, s->step, &s->keep, err);
}

static void *write_in_background(void *saver) {
    bb_saver *s = saver;
    s->status = write_checkpoint(s, &s->error);
    s->finished = bb_clock_seconds();
    atomic_store_explicit(&s->ended, true, memory_order_release);
    return NULL;
}

/* The program's signals stay with the thread that trains. */
static bool start_thread(bb_saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
    bool started = pthread_create(&s->thread, NULL, write_in_background, s) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static bb_status finish(bb_saver *s, bb_status status) {
    s->under_way = false;
    if (status == BB_OK && s->on_saved) s->on_saved(s->user, s->step, s->path, s->paused_seconds, s->finished - s->began);
    free(s->path);
    s->path = NULL;
    return status;
}

bb_status bb_saver_wait(bb_saver *s, bb_error *err) {
    if (!s || !s->under_way) return BB_OK;
    pthread_join(s->thread, NULL);
    bb_status status = s->status;
    if (status != BB_OK) bb_fail(err, status, "%s", s->error.message);
    return finish(s, status);
}

void bb_saver_copied(bb_saver *s) {
    if (!s) return;
    double begin = bb_clock_seconds();
    pthread_mutex_lock(&s->lock);
    while (!s->is_copied) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    s->paused_seconds += bb_clock_seconds() - begin;
}

bb_status bb_saver_poll(bb_saver *s, bb_error *err) {
    if (!s || !s->under_way || !atomic_load_explicit(&s->ended, memory_order_acquire)) return BB_OK;
    return bb_saver_wait(s, err);
}

uint64_t bb_saver_checkpoint_bytes(const bb_saver *s) { return bb_checkpoint_image_bytes(s->image); }

bb_status bb_saver_save(bb_saver *s, const bb_training_state *state, const bb_keep *keep, bb_error *err) {
    double begin = bb_clock_seconds();
    BB_TRY(bb_saver_wait(s, err));
    s->began = begin;
    BB_TRY(bb_checkpoint_image_take(s->image, s->model, s->optimizer, state, err));
    s->path = bb_run_dir_checkpoint_path(s->dir, state->step);
    if (!s->path) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    s->step = state->step;
    s->keep = *keep;
    atomic_store(&s->ended, false);
    set_copied(s, false);
    s->under_way = s->way != BB_SAVER_WAITS && start_thread(s);
    s->paused_seconds = bb_clock_seconds() - begin;
    if (s->under_way) return BB_OK;
    bb_status status = write_checkpoint(s, err);
    s->finished = bb_clock_seconds();
    s->paused_seconds = s->finished - begin;
    return finish(s, status);
}

void bb_saver_free(bb_saver *s) {
    if (!s) return;
    bb_error ignored;
    s->on_saved = NULL;
    (void)bb_saver_wait(s, &ignored);
    bb_checkpoint_image_free(s->image);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}
