// SPDX-License-Identifier: MIT
#include "training/saver.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"
#include "training/checkpoint_write.h"

struct bb_saver {
    const bb_run_dir *dir;
    bb_snapshot *snapshot;
    bb_saver_mode mode;
    bb_saver_saved on_saved;
    void *user;
    /* of the current save */
    bool in_progress;
    int64_t step;
    bb_retention keep;
    char *path;
    double paused_seconds, began;
    pthread_t thread;
    /* set by the thread; read after it has ended */
    atomic_bool ended;
    bb_status status;
    bb_error error;
    double finished; /* when the file was on disk */
};

bb_saver_mode bb_saver_mode_for(const bb_train_options *o, uint64_t bytes, bool shared_out) {
    if (o->save_sync) return BB_SAVER_SYNC;
    bool copy =
        o->save_copy == BB_SAVE_COPY_AUTO ? shared_out || bb_snapshot_copy_is_small(bytes) : o->save_copy == BB_SAVE_COPY_YES;
    return copy ? BB_SAVER_SNAPSHOT : BB_SAVER_LIVE;
}

bb_status bb_saver_create(const bb_model *model, const bb_optimizer *optimizer, const bb_run_dir *dir,
                          const bb_saver_options *options, bb_saver **out, bb_error *err) {
    *out = NULL;
    bb_saver *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for saving");
    s->dir = dir;
    s->on_saved = options->on_saved;
    s->user = options->user;
    s->mode = options->mode;
    bb_status status = bb_snapshot_create(model, optimizer, s->mode == BB_SAVER_SNAPSHOT, &s->snapshot, err);
    if (status == BB_ERR_MEMORY && s->mode == BB_SAVER_SNAPSHOT) {
        s->mode = BB_SAVER_LIVE;
        status = bb_snapshot_create(model, optimizer, false, &s->snapshot, err);
    }
    if (s->mode == BB_SAVER_LIVE && !bb_snapshot_is_local(model, optimizer)) s->mode = BB_SAVER_SYNC;
    if (status == BB_OK)
        *out = s;
    else
        bb_saver_free(s);
    return status;
}

bb_saver_mode bb_saver_mode_used(const bb_saver *saver) { return saver->mode; }

static bb_status write_checkpoint(bb_saver *s, bb_error *err) {
    BB_TRY(bb_checkpoint_write(s->snapshot, s->path, err));
    return bb_run_dir_checkpoint_saved(s->dir, s->step, &s->keep, err);
}

static void *write_in_background(void *saver) {
    bb_saver *s = saver;
    s->status = write_checkpoint(s, &s->error);
    s->finished = bb_clock_seconds();
    atomic_store_explicit(&s->ended, true, memory_order_release);
    return NULL;
}

/* Starts the thread with all signals blocked: signals are handled by the training thread. */
static bool start_thread(bb_saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
    bool started = pthread_create(&s->thread, NULL, write_in_background, s) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static bb_status finish(bb_saver *s, bb_status status) {
    s->in_progress = false;
    if (status == BB_OK && s->on_saved) s->on_saved(s->user, s->step, s->path, s->paused_seconds, s->finished - s->began);
    free(s->path);
    s->path = NULL;
    return status;
}

bb_status bb_saver_wait(bb_saver *s, bb_error *err) {
    if (!s || !s->in_progress) return BB_OK;
    pthread_join(s->thread, NULL);
    bb_status status = s->status;
    if (status != BB_OK) bb_fail(err, status, "%s", s->error.message);
    return finish(s, status);
}

void bb_saver_wait_snapshot(bb_saver *s) {
    if (!s) return;
    double begin = bb_clock_seconds();
    bb_snapshot_wait(s->snapshot);
    s->paused_seconds += bb_clock_seconds() - begin;
}

bb_status bb_saver_poll(bb_saver *s, bb_error *err) {
    if (!s || !s->in_progress || !atomic_load_explicit(&s->ended, memory_order_acquire)) return BB_OK;
    return bb_saver_wait(s, err);
}

uint64_t bb_saver_checkpoint_bytes(const bb_saver *s) { return bb_snapshot_bytes(s->snapshot); }

bb_status bb_saver_save(bb_saver *s, const bb_training_state *state, const bb_retention *keep, bb_error *err) {
    double begin = bb_clock_seconds();
    BB_TRY(bb_saver_wait(s, err));
    s->began = begin;
    s->path = bb_run_dir_checkpoint_path(s->dir, state->step);
    if (!s->path) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    s->step = state->step;
    s->keep = *keep;
    bb_status status = bb_snapshot_capture(s->snapshot, state, err);
    if (status != BB_OK) return finish(s, status);
    atomic_store(&s->ended, false);
    s->in_progress = s->mode != BB_SAVER_SYNC && start_thread(s);
    s->paused_seconds = bb_clock_seconds() - begin;
    if (s->in_progress) return BB_OK;
    status = write_checkpoint(s, err);
    s->finished = bb_clock_seconds();
    s->paused_seconds = s->finished - begin;
    return finish(s, status);
}

void bb_saver_free(bb_saver *s) {
    if (!s) return;
    bb_error ignored;
    s->on_saved = NULL;
    (void)bb_saver_wait(s, &ignored);
    bb_snapshot_free(s->snapshot);
    free(s);
}
