// SPDX-License-Identifier: MIT
/* Continuations of one prompt, printed as text or as one JSON object. */
#ifndef BB_PROGRAMS_GENERATE_SAMPLES_H
#define BB_PROGRAMS_GENERATE_SAMPLES_H

#include "generate_options.h"

typedef struct bb_samples {
    bb_model *model;
    const char *model_path;
    const bb_generation *generation; /* resolved; its seed is that of the first sample */
    const bb_batch_options *batch;
    bb_bytes prompt;
    int count;
    const char *metrics_json; /* file for the metrics; may be NULL */
    bool metrics, json, echo, no_echo;
} bb_samples;

/* A signal stops it without an error. */
bb_status bb_generate_samples(const bb_samples *samples, bb_error *err);

#endif
