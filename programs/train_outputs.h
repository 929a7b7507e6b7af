// SPDX-License-Identifier: MIT
/* Where a run's metrics go besides metrics.jsonl: samples, metrics.csv, TensorBoard event files, a command's standard input. A
 * failure of one of these is a note, and the run goes on without it. */
#ifndef BB_PROGRAMS_TRAIN_OUTPUTS_H
#define BB_PROGRAMS_TRAIN_OUTPUTS_H

#include "metrics_command.h"
#include "tensorboard.h"
#include "train_report.h"

typedef struct bb_train_outputs {
    const bb_train_args *args;
    bb_train_report *report; /* gets the notes and the samples */
    bb_model *model;
    bb_trainer *trainer;
    int64_t first_step; /* that this process goes on from */
    bool opened;        /* at the first step: before it there is no run directory */
    FILE *csv;
    bb_tensorboard *board;
    bb_metrics_command command;
} bb_train_outputs;

/* Opens nothing yet. first_step is 0 until the caller sets it. */
bb_train_outputs bb_train_outputs_for(const bb_train_args *args, bb_train_report *report, bb_model *model, bb_trainer *trainer);
void bb_train_outputs_event(bb_train_outputs *outputs, const bb_train_event *event);
void bb_train_outputs_close(bb_train_outputs *outputs);

#endif
