// SPDX-License-Identifier: MIT
/* Options and steps that several commands share: device, model shape, memory, JSON shown to people. */
#ifndef BB_PROGRAMS_COMMON_H
#define BB_PROGRAMS_COMMON_H

#include <math.h>

#include "cli.h"

typedef struct bb_device_args {
    int device; /* place in bb_device_choices */
    int threads;
} bb_device_args;

extern const char *bb_device_choices[]; /* filled in by bb_device_choices_init, before any command runs */
void bb_device_choices_init(void);

#define BB_DEVICE_ROWS(args)                                                                                                   \
    {.name = "threads",                                                                                                        \
     .type = BB_CLI_INT,                                                                                                       \
     .target = &(args).threads,                                                                                                \
     .value = "N",                                                                                                             \
     .help = "processor threads; results do not depend on it",                                                                 \
     .range = BB_CLI_FROM_TO(0, 1024),                                                                                         \
     .default_text = "0: every one that the process may use",                                                                  \
     .saved = BB_CLI_SAVED_FREE},                                                                                              \
    {                                                                                                                          \
        .name = "device", .type = BB_CLI_CHOICE, .target = &(args).device, .choices = bb_device_choices,                       \
        .help = "what computes: cpu is the fast one, ref the slow scalar definition that it is checked against",               \
        .saved = BB_CLI_SAVED_FREE                                                                                             \
    }

bb_status bb_device_args_open(const bb_device_args *args, bb_device **out, bb_error *err);

/* The shape and the mathematics of a model, as options. */
typedef struct bb_model_args {
    int n_layer, d_model, n_head, n_kv_head, d_ff; /* n_kv_head 0: n_head */
    bool no_act_quant;
    int ste; /* bb_ste */
    double rope_base;
} bb_model_args;

extern const char *const bb_ste_choices[], *const bb_optim_choices[], *const bb_kv_choices[];

#define BB_MODEL_ROWS(args)                                                                                                    \
    {.name = "n_layer",                                                                                                        \
     .type = BB_CLI_INT,                                                                                                       \
     .target = &(args).n_layer,                                                                                                \
     .value = "N",                                                                                                             \
     .help = "transformer blocks",                                                                                             \
     .range = BB_CLI_AT_LEAST(1)},                                                                                             \
        {.name = "d_model",                                                                                                    \
         .type = BB_CLI_INT,                                                                                                   \
         .target = &(args).d_model,                                                                                            \
         .value = "N",                                                                                                         \
         .help = "width; a multiple of n_head",                                                                                \
         .range = BB_CLI_AT_LEAST(1)},                                                                                         \
        {.name = "n_head",                                                                                                     \
         .type = BB_CLI_INT,                                                                                                   \
         .target = &(args).n_head,                                                                                             \
         .value = "N",                                                                                                         \
         .help = "attention heads; d_model / n_head must be even",                                                             \
         .range = BB_CLI_AT_LEAST(1)},                                                                                         \
        {.name = "n_kv_head",                                                                                                  \
         .type = BB_CLI_INT,                                                                                                   \
         .target = &(args).n_kv_head,                                                                                          \
         .value = "N",                                                                                                         \
         .help = "key/value heads; a divisor of n_head, fewer make the cache smaller",                                         \
         .range = BB_CLI_AT_LEAST(1),                                                                                          \
         .default_text = "n_head"},                                                                                            \
        {.name = "d_ff",                                                                                                       \
         .type = BB_CLI_INT,                                                                                                   \
         .target = &(args).d_ff,                                                                                               \
         .value = "N",                                                                                                         \
         .help = "inner width of the MLP",                                                                                     \
         .range = BB_CLI_AT_LEAST(1)},                                                                                         \
        {.name = "rope_base",                                                                                                  \
         .type = BB_CLI_DOUBLE,                                                                                                \
         .target = &(args).rope_base,                                                                                          \
         .value = "X",                                                                                                         \
         .help = "base of the rotary position embedding",                                                                      \
         .range = BB_CLI_ABOVE(0)},                                                                                            \
        {.name = "no_act_quant",                                                                                               \
         .type = BB_CLI_FLAG,                                                                                                  \
         .target = &(args).no_act_quant,                                                                                       \
         .help = "leave the inputs of the ternary layers as they are instead of rounding them to int8"},                       \
    {                                                                                                                          \
        .name = "ste", .type = BB_CLI_CHOICE, .target = &(args).ste, .choices = bb_ste_choices,                                \
        .help = "gradient of a ternary weight: passed as it is, or zero where the weight was clipped"                          \
    }

void bb_model_args_default(bb_model_args *args);
/* The shape from a model file: fills what was not given; a given option that contradicts it is a usage error that names both.
 * Returns BB_CLI_GO_ON or an exit status. */
int bb_model_args_from_file(const bb_cli_command *command, bb_model_args *args, const char *path, const bb_config *file);
void bb_model_args_config(const bb_model_args *args, bb_config *out);

/* Gives `take` the file as it was given, or of a run directory the newest checkpoint that is not damaged; each that is gets a
 * line on standard error. path: what was taken. */
bb_status bb_model_find(const char *given, bb_status (*take)(void *user, const char *path, bb_error *err), void *user,
                        char *path, size_t size, bb_error *err);
/* The same, loaded. */
bb_status bb_model_open(bb_device *device, const char *given, char *path, size_t size, bb_model **out, bb_error *err);

/* "parameters 4.3 MB, gradients 4.3 MB, …" of what training takes. */
void bb_memory_line(const bb_memory_estimate *memory, char *out, size_t size);
json_t *bb_memory_json(const bb_memory_estimate *memory);

/* Writes a JSON value as indented text for people: nested objects under their name, lists of objects as tables. */
void bb_json_show(json_t *json, FILE *out);
/* Prints one line of JSON on stdout and flushes it; takes the reference. */
void bb_json_line(json_t *json);

/* Every command. argv[0] is its name; they return the exit status. */
int bb_cmd_train(int argc, char **argv);
int bb_cmd_eval(int argc, char **argv);
int bb_cmd_generate(int argc, char **argv);
int bb_cmd_pack(int argc, char **argv);
int bb_cmd_export(int argc, char **argv);
int bb_cmd_info(int argc, char **argv);
int bb_cmd_bench(int argc, char **argv);

#endif
