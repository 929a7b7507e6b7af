// SPDX-License-Identifier: MIT
/* generate --prompts: generates a text for each line of a file of JSON objects, and writes JSON lines in the same order. */
#ifndef BB_PROGRAMS_GENERATE_PROMPTS_H
#define BB_PROGRAMS_GENERATE_PROMPTS_H

#include "generate_options.h"

typedef struct bb_prompt_file {
    bb_model *model;
    const bb_generation *generation; /* resolved; defaults for what a line does not set */
    const bb_batch_options *batch;
    const char *prompts; /* "-": standard input */
    const char *out;     /* NULL: standard output. Existing results in it are kept and not generated again */
} bb_prompt_file;

/* Returns the exit status, 1 if a line failed; or -1 with err. */
int bb_generate_prompts(const bb_prompt_file *file, bb_error *err);

#endif
