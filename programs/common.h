// SPDX-License-Identifier: MIT
/* Options and code shared by several commands: device, model shape, finding a model file, memory. */
#ifndef BB_PROGRAMS_COMMON_H
#define BB_PROGRAMS_COMMON_H

#include <jansson.h>

#include "bitbyte.h"
#include "cli.h"

typedef struct bb_device_args {
    int device; /* index into bb_device_choices */
    int threads;
} bb_device_args;

enum { BB_NAMED_DEVICES = 3 };          /* that help lists; further cards follow */
extern const char *bb_device_choices[]; /* filled in by bb_device_choices_init, before any command runs */
void bb_device_choices_init(void);

extern const bb_cli_group bb_device_group; /* --threads and --device */

/* Prints notes about options without effect. */
void bb_device_args_notes(const bb_cli *cli, const bb_device_args *args);
/* dist: NULL, or the job of this process; then it is a collective call. */
bb_status bb_device_args_open(const bb_device_args *args, bb_dist *dist, bb_device **out, bb_error *err);

/* Model shape and arithmetic, as options. */
typedef struct bb_model_args {
    int n_layer, d_model, n_head, n_kv_head, d_ff; /* n_kv_head 0: same as n_head */
    int arch, ngram_max, ngram_bits;               /* arch: index into bb_arch_choices */
    bool no_act_quant, dense;
    int ste; /* bb_ste */
    double rope_base;
} bb_model_args;

extern const char *const bb_arch_choices[], *const bb_ste_choices[], *const bb_optim_choices[], *const bb_kv_choices[];

extern const bb_cli_group bb_model_group;

void bb_model_args_default(bb_model_args *args);
/* Reports options without effect. */
void bb_model_args_notes(const bb_cli *cli, const bb_model_args *args);
/* Returns the first option that was given and sets a part of the shape, or NULL. */
const char *bb_model_args_given_shape(const bb_cli *cli);
void bb_model_args_set_shape(bb_model_args *args, const bb_config *shape);
/* Takes the shape from --size; one of its own options beside it is a usage error. Returns BB_CLI_CONTINUE or an exit status. */
int bb_model_args_of_size(const bb_cli *cli, bb_model_args *args, const char *size);
/* Takes the shape from a model file. An option that contradicts the file is a usage error that names both values. Returns
 * BB_CLI_CONTINUE or an exit status. */
int bb_model_args_from_file(const bb_cli *cli, bb_model_args *args, const char *path, const bb_config *file);
void bb_model_args_config(const bb_model_args *args, bb_config *out);

/* --n_head, for model files that do not store the number of attention heads. */
typedef struct bb_import_args {
    int n_head; /* 0: not given */
} bb_import_args;
extern const bb_cli_group bb_import_group;
/* Options for reading a model file; notices go to standard error. */
bb_import_options bb_import_args_options(const bb_import_args *args);

/* Calls `load` on `given`; if that is a run directory, on its latest valid checkpoint, reporting each damaged one on standard
 * error; if it is a run's `latest` or `best`, on the checkpoint that it names. path: receives the name of the loaded file. */
bb_status bb_model_find(const char *given, bb_status (*load)(void *user, const char *path, bb_error *err), void *user,
                        char *path, size_t size, bb_error *err);

/* A model for inference, and its path. */
typedef struct bb_found_model {
    bb_model *model;
    char path[4096];
} bb_found_model;
/* Finds the model as bb_model_find does, and loads it. */
bb_status bb_model_open(bb_device *device, const char *given, const bb_import_args *args, bb_found_model *out, bb_error *err);

/* Describes training memory: "parameters 4.3 MB, gradients 4.3 MB, …". */
void bb_memory_line(const bb_memory_estimate *memory, char *out, size_t size);
json_t *bb_memory_json(const bb_memory_estimate *memory);

/* Prints json as one line on standard output and releases it. Exits with an error if out of memory. */
void bb_json_line(json_t *json);

#endif
