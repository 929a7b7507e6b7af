// SPDX-License-Identifier: MIT
/* The trainer's state, for the files trainer*.c alone. Each uses those above it in this list:
 *   trainer_events.c    events for the caller, lines of metrics.jsonl
 *   trainer_save.c      checkpoints of the run, the one after an error too
 *   trainer_ranks.c     what ranks report to each other, and decide from it
 *   trainer_validate.c  validations
 *   trainer_budget.c    the number of steps that fits in a budget of time; config.json
 *   trainer_step.c      one step: accumulate, clip, update, or skip
 *   trainer_open.c      creating a trainer, resuming, opening the run's directory
 *   trainer.c           the loop */
#ifndef BB_TRAINING_TRAINER_STATE_H
#define BB_TRAINING_TRAINER_STATE_H

#include <signal.h>

#include "core/math.h"
#include "data/dataset.h"
#include "dist/dist.h"
#include "training/budget.h"
#include "training/checkpoint_state.h"
#include "training/gradients.h"
#include "training/loss.h"
#include "training/optim.h"
#include "training/run_data.h"
#include "training/run_metrics.h"
#include "training/saver.h"
#include "training/train_options.h"

/* Sent once per step by every rank to all. */
typedef struct bb_rank_report {
    int64_t stop, save, save_due, time_is_up; /* save_due and time_is_up count from rank 0 alone */
    int64_t steps;                            /* of rank 0: the corrected number; 0: no correction now */
    int64_t failed, unchecked;                /* unchecked: a micro-batch whose loss is not finite has spoilt the gradients */
    uint64_t weights;                         /* checksum of a part of them */
    double wait_seconds;                      /* in the step before */
    double losses[];                          /* of its micro-batches; as many as the rank with the most has */
} bb_rank_report;

/* Sent by every rank to all between the batches of a validation. */
typedef struct bb_rank_poll {
    int64_t stop, save, time_is_up, stage; /* time_is_up and the following members count only from rank 0 */
    int64_t is_best, out_of_patience;
} bb_rank_poll;
enum { BB_VALIDATING, BB_VALIDATED, BB_VALIDATION_ABANDONED }; /* stages */

typedef struct bb_rank_waits { /* seconds over ranks, summed over steps */
    double mean, min;
} bb_rank_waits;

/* By the budget's clock: when the latest save began, how long training waited for it, and how long a save took in all. */
typedef struct bb_latest_save {
    double began, pause, seconds;
} bb_latest_save;

/* The options' texts with the corrected steps; NULL: not corrected. */
typedef struct bb_corrected_texts {
    char *run_config, *checkpoint_config, *steps_before;
} bb_corrected_texts;

struct bb_trainer {
    bb_model *model;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler; /* may be NULL */
    bb_train_options options;
    bb_lr_plan lr_plan;
    bb_budget budget; /* of rank 0 */
    bb_corrected_texts corrected;
    bb_training_state state;
    char *resumed_from;   /* path of the checkpoint; NULL: a new run */
    int64_t damaged_step; /* checkpoints after resumed_from up to this step are damaged; -1: none */
    bb_run_data run_data;
    bb_run_dir run_dir;               /* path NULL: writes nothing */
    bb_saver *saver;                  /* rank 0 only */
    bool saves_copy;                  /* the saver writes from a copy; known to all ranks */
    volatile sig_atomic_t stop, save; /* requests to this rank */
    bb_dist *dist;                    /* from the options, else own_dist */
    bb_dist *own_dist;                /* a single process, opened here if the caller gave no dist */
    bb_micro_run micro_run;           /* this rank's micro-batches of a step */
    bb_gradients gradients;
    bb_rank_report *reports; /* (size + 1): one per rank, then this rank's own report to send; see bb_trainer_report_of */
    size_t report_bytes;     /* size of one report */
    bb_rank_poll *polls;     /* (size) */
    bool stopping, save_asked, save_due, time_is_up; /* decided by all ranks */
    int64_t steps_asked;                             /* likewise; 0: none */
    int64_t save_started_step, saved_step;           /* begun, and on disk; -1: none by this process yet */
    int bad_micro_batches;                           /* of this step: their loss is not finite */
    bool spoilt;                                     /* of a rank that had one the gradients are not those of the others */
    /* When an error ends the run */
    bb_error failure;     /* of this rank; the others learn of it in the next report */
    bool failed_together; /* all ranks know of the error, and can save together */
    bool updating;        /* during an update, when the weights belong to no step */
    bool save_failed, drifted;
    bb_train_event unlogged_event; /* step > 0: an event whose line could not be written */
    /* Validation */
    bool validate_first;    /* the step resumed from was not validated */
    bool validation_missed; /* the latest validation that was due was abandoned */
    volatile int abandon;   /* abandon the current validation */
    int64_t failed_validations;
    int val_batch;
    bool val_shards_noted;  /* the notice that validation scores training shards was given */
    bb_val_history history; /* rank 0 only */
    bool is_best;           /* rank 0 only: the validation that just ended is the best so far */
    bool out_of_patience;   /* decided by rank 0, known to all */
    bool best_is_late;      /* likewise: the run that is resumed was killed before it wrote `best` */
    /* Of the budget and of max_minutes; the clock is bb_clock_seconds but in tests */
    double (*clock)(void);
    double created, max_step_seconds;
    bb_latest_save budget_save;
    /* Times, in seconds of bb_clock_seconds */
    double started, ended, last_log_time, last_save;
    double max_save_seconds;
    double val_seconds, other_seconds;     /* of the latest validation; of all validations and saves in this call of train */
    int64_t val_bytes;                     /* of the validation data; 0: not known */
    double gather_seconds;                 /* until rank 0 had all weights for the latest save */
    double wait_seconds;                   /* this rank's in the step before */
    bb_rank_waits logged_waits, all_waits; /* since the last logged step, and before that in this call of train */
    uint8_t *x, *y;                        /* (batch_size, longest seq_len) */
    int64_t last_log_bytes, first_step;
};

/* The results of one step. */
typedef struct bb_step_result {
    int seq_len;
    double lr, loss, grad_norm;    /* loss, grad_norm: NaN if unknown */
    double loss_limit, norm_limit; /* above these limits the step is skipped as a spike */
    bool applied;
} bb_step_result;

/* ---- trainer_events.c ---- */

/* Calls on_event, on rank 0. */
void bb_trainer_emit(const bb_trainer *t, const bb_train_event *event);
bb_train_event bb_trainer_event(const bb_trainer *t, bb_train_event_kind kind);
bb_train_event bb_trainer_step_event(const bb_trainer *t, const bb_step_result *result);
void bb_trainer_notice(const bb_trainer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bb_status bb_trainer_log_metrics(const bb_trainer *t, const bb_train_event *event, bb_error *err);
/* The same for a step; also begins the next interval of logged times. */
bb_status bb_trainer_log_step(bb_trainer *t, const bb_train_event *event, bb_error *err);

/* ---- trainer_save.c ---- */

/* Implements bb_saver_saved. */
void bb_trainer_on_saved(void *user, int64_t step, const char *path, double paused_seconds, double seconds);
/* Fails unless all weights are finite. Every save checks this first, so the latest checkpoint is valid. All ranks have the same
 * weights, and get the same result. */
bb_status bb_trainer_check_weights(const bb_trainer *t, bb_error *err);
/* Begins to save the current step, unless that was done already. Collective call. */
bb_status bb_trainer_save(bb_trainer *t, bb_error *err);
/* Returns how long a save may take, for as long as none has been measured; 0 on a rank that saves nothing. */
double bb_trainer_estimated_save_seconds(const bb_trainer *t);
/* Saves the current step as the best. Collective call. */
bb_status bb_trainer_save_best(bb_trainer *t, bb_error *err);
/* Returns which checkpoints are kept. */
bb_retention bb_trainer_retention(const bb_trainer *t);
bb_status bb_trainer_poll_saver(bb_trainer *t, bb_error *err);
/* Called after an error ended the run: saves the last complete step if possible, and appends to err which step is saved. */
void bb_trainer_save_after_error(bb_trainer *t, bb_status status, bb_error *err);

/* ---- trainer_ranks.c: all ranks call these together ---- */

bb_rank_report *bb_trainer_report_of(const bb_trainer *t, int rank);
/* Fails if the ranks do not have the same weights. */
bb_status bb_trainer_compare_weights(bb_trainer *t, bb_error *err);
/* Sets *decision on all ranks to that of rank 0; the input of other ranks must be false. */
bb_status bb_trainer_follow_rank_0(bb_trainer *t, bool *decision, bb_error *err);
/* Called after the micro-batches of a step: exchanges reports, and derives from them what to do after this step. *loss: the
 * mean over the finite micro-batches, summed in their order; NaN if there was none. */
bb_status bb_trainer_exchange_reports(bb_trainer *t, double *loss, bb_error *err);
/* Called between the batches of a validation and once at its end: decides whether to stop, and whether to save meanwhile. */
bb_status bb_trainer_poll_ranks(bb_trainer *t, int stage, bb_error *err);
/* Called when all ranks know that at least one has failed: returns the error of the lowest such rank, on all ranks. */
bb_status bb_trainer_fail_together(bb_trainer *t, bb_error *err);

/* ---- trainer_validate.c ---- */

bool bb_trainer_validation_due(const bb_trainer *t);
/* Rank 0 validates; the others wait for it, and report requests to stop or to save. */
bb_status bb_trainer_validate(bb_trainer *t, bb_error *err);

/* ---- trainer_budget.c ---- */

/* On rank 0, once a step: the number of steps that fits in the budget, when it is time to correct it and it is another one; else 0. */
int64_t bb_trainer_corrected_steps(bb_trainer *t);
/* On rank 0: writes config.json to the run's directory, if the options have its text. */
bb_status bb_trainer_write_config(const bb_trainer *t, bb_error *err);
/* On all ranks, after a step: the run has so many steps from now on; what is left of its schedule is stretched over them. Rank 0
 * writes it to config.json. */
bb_status bb_trainer_set_steps(bb_trainer *t, int64_t steps, bb_error *err);

/* ---- trainer_step.c ---- */

bb_status bb_trainer_do_step(bb_trainer *t, bb_dataset *dataset, bb_step_result *result, bb_error *err);
/* Fails if too many steps in a row were skipped. */
bb_status bb_trainer_check_skipped(const bb_trainer *t, bb_error *err);

/* ---- trainer_open.c ---- */

/* On rank 0, before the first step: fails if there is nothing to validate with, which would otherwise show only after hours;
 * reads the earlier validations, and sets validate_first if that of the step resumed from was abandoned or failed. */
bb_status bb_trainer_check_validation(bb_trainer *t, bb_error *err);
/* On rank 0: compares the data with the checkpoint's record, and reports what changed. */
bb_status bb_trainer_check_data(bb_trainer *t, bb_dataset *dataset, bb_error *err);
/* On rank 0: opens the run's directory and the saver. */
bb_status bb_trainer_open_run_dir(bb_trainer *t, bb_error *err);

/* ---- what follows from the options ---- */

static inline bool bb_trainer_is_due(int64_t step, int interval) { return interval > 0 && step % interval == 0; }

enum { BB_DEFAULT_VAL_SEQ_LEN = 2048 };

/* Constant over the run, because the curriculum begins at 2048 or at its cap. */
static inline int bb_trainer_val_seq_len(const bb_train_options *o) {
    return o->val_seq_len ? o->val_seq_len : (int)bb_min(bb_train_seq_len(o, 0), BB_DEFAULT_VAL_SEQ_LEN);
}

/* Returns the step after which this process ends. */
static inline int64_t bb_trainer_last_step(const bb_train_options *o) {
    return o->stop_at > 0 && o->stop_at < o->steps ? o->stop_at : o->steps;
}

#endif
