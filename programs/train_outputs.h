// SPDX-License-Identifier: MIT
/* Additional destinations of a run's metrics besides metrics.jsonl: samples, metrics.csv, TensorBoard event files, a command's
 * standard input. If one of them fails, the run prints a note and continues without it. */
#ifndef BB_PROGRAMS_TRAIN_OUTPUTS_H
#define BB_PROGRAMS_TRAIN_OUTPUTS_H

#include "metrics_command.h"
#include "tensorboard.h"
#include "train_report.h"

typedef struct bb_train_outputs {
    const bb_train_args *args;
    bb_train_report *report; /* receives the notes and the samples */
    bb_model *model;
    bb_trainer *trainer;
    int64_t first_step; /* step that this process starts from */
    bool opened;        /* opened at the first step, because there is no run directory before it */
    FILE *csv;
    bb_tensorboard *board;
    bb_metrics_command command;
} bb_train_outputs;

/* Returns unopened outputs. The caller sets first_step. */
bb_train_outputs bb_train_outputs_for(const bb_train_args *args, bb_train_report *report, bb_model *model, bb_trainer *trainer);
void bb_train_outputs_event(bb_train_outputs *outputs, const bb_train_event *event);
void bb_train_outputs_close(bb_train_outputs *outputs);

#endif
