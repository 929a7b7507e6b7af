// SPDX-License-Identifier: MIT
/* BitByte: a byte-level language model with ternary weights. This is the whole public C API.
 * A function that can fail returns bb_status, stores its result in an out-parameter and, on failure, fills the caller's
 * bb_error (which may be NULL). The library never prints, exits or installs signal handlers, except as bb_dist_open says. Use
 * a handle from one thread at a time; devices may be shared. Arrays are row-major, in host memory. A pointer may be NULL only
 * where its comment says so; otherwise NULL is BB_ERR_ARGUMENT, and functions without a status return 0, false or NULL. */
#ifndef BITBYTE_H
#define BITBYTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BB_API __attribute__((visibility("default")))
#else
#define BB_API
#endif

#define BB_VERSION_MAJOR 0
#define BB_VERSION_MINOR 1
#define BB_VERSION_PATCH 0

/* ---- Status ---------------------------------------------------------------------------------------------------------- */

typedef enum bb_status {
    BB_OK = 0,
    BB_ERR_ARGUMENT,    /* invalid argument; the message names it and what is allowed */
    BB_ERR_IO,          /* system error: missing file, no permission, full disk */
    BB_ERR_FORMAT,      /* malformed file; the message says where */
    BB_ERR_DATA,        /* no usable training or evaluation data */
    BB_ERR_MEMORY,      /* not enough memory */
    BB_ERR_UNSUPPORTED, /* not in this build or not on this processor; the message says how to get it */
    BB_ERR_NUMERIC,     /* training diverged: the values are no longer finite */
    BB_ERR_INTERRUPTED, /* stopped at the caller's request */
    BB_ERR_INTERNAL,    /* a bug in this library, or a failure in one it uses */
    BB_ERR_PEER         /* another process of the job, its host, or the network failed */
} bb_status;

typedef struct bb_error {
    bb_status code;
    char message[1024]; /* one line without newline: what, where, expected, found */
} bb_error;

BB_API const char *bb_status_name(bb_status status);
BB_API const char *bb_version(void); /* "0.1.0" */

/* ---- Device ---------------------------------------------------------------------------------------------------------- */

typedef struct bb_device bb_device;

/* name: "cpu" (oneDNN and SIMD), "cuda" (an NVIDIA card, if this build has CUDA; "cuda:1" is the second one) or "ref" (scalar
 * reference implementation; slow). threads: 0 uses OMP_NUM_THREADS if set, else the smaller of the affinity mask and the cgroup
 * CPU quota, rounded up. Results do not depend on it. Close a device after everything created on it. Threads may share a device
 * if each has its own models, layers and sessions; calls then run one at a time, and bb_trainer_train, bb_evaluate and
 * bb_generate release the device between steps, batches and passes, and during callbacks. To compute in parallel, open one
 * device per thread, each with some of the processors. */
BB_API bb_status bb_device_open(const char *name, int threads, bb_device **out, bb_error *err);
BB_API void bb_device_close(bb_device *device);
/* Name of known device `index`; NULL past the last. *why_not (may be NULL): why it cannot be opened here, or NULL. */
BB_API const char *bb_device_known(int index, const char **why_not);
BB_API const char *bb_device_name(const bb_device *device);
BB_API int bb_device_threads(const bb_device *device);
/* Instruction set and library in use, on one line, e.g. "avx512_amx, oneDNN 2.6.3". */
BB_API const char *bb_device_description(const bb_device *device);
/* Total and free device memory in bytes; both 0 if unknown (no /proc). */
BB_API void bb_device_memory(const bb_device *device, uint64_t *total_bytes, uint64_t *free_bytes);

/* ---- Distributed training -------------------------------------------------------------------------------------------- */

/* A job of `size` processes, ranks 0 .. size-1. All ranks make the same calls in the same order. */
typedef struct bb_dist bb_dist;

/* engine: "single" (this process only) or "mpi" (started by mpirun or srun; open once per process). BB_ERR_UNSUPPORTED in a
 * build without MPI. MPI waits forever for a process that never joins, so after 30 seconds this process reports that on
 * standard error and exits with status 1. bb_dist_close does the same. */
BB_API bb_status bb_dist_open(const char *engine, bb_dist **out, bb_error *err);
/* Waits until all ranks call it. After a failure it only frees memory. */
BB_API void bb_dist_close(bb_dist *dist);
/* Ends every process of the job with exit_status, e.g. after an error on this rank alone. Does not return. */
BB_API void bb_dist_abort(bb_dist *dist, int exit_status);
/* Call before reporting an error and bb_dist_abort: returns within a second on the first rank that fails, and on others only
 * if that rank has not ended the job a few seconds later. So one rank reports the error. */
BB_API void bb_dist_wait_to_report(bb_dist *dist);
BB_API int bb_dist_rank(const bb_dist *dist);
BB_API int bb_dist_size(const bb_dist *dist);
BB_API int bb_dist_local_size(const bb_dist *dist); /* ranks on this host */
BB_API const char *bb_dist_host(const bb_dist *dist, int rank);
/* Thread count for this rank's device: its processors divided among the ranks that share them. */
BB_API int bb_dist_threads(const bb_dist *dist);
/* Seconds without a heartbeat after which a rank counts as lost (default 15). Busy ranks send heartbeats too. */
BB_API void bb_dist_set_timeout(bb_dist *dist, int seconds);
/* Collective. BB_OK on every rank if all pass BB_OK, else the error of the lowest failing rank, "rank 2 on HOST: …". */
BB_API bb_status bb_dist_agree(bb_dist *dist, bb_status mine, bb_error *err);
/* values: (size), one per rank. */
BB_API bb_status bb_dist_all_gather_u64(bb_dist *dist, uint64_t mine, uint64_t *values, bb_error *err);
/* Total seconds that this rank has waited for others. */
BB_API double bb_dist_wait_seconds(const bb_dist *dist);

/* ---- Model ----------------------------------------------------------------------------------------------------------- */

typedef enum bb_ste { BB_STE_IDENTITY = 0, BB_STE_CLIPPED = 1 } bb_ste; /* straight-through estimator of the weight gradient */

typedef struct bb_config {
    int vocab_size; /* 256: raw bytes */
    int n_layer, d_model, n_head, n_kv_head, d_ff;
    double rope_base, norm_eps;
    bool act_quant; /* int8 inputs with one scale per token in every BitLinear */
    bb_ste ste;
} bb_config;

BB_API void bb_config_default(bb_config *config); /* n_layer 24, d_model 1536, n_head 12, d_ff 4096 */
BB_API bb_status bb_config_check(const bb_config *config, bb_error *err);
BB_API uint64_t bb_config_parameters(const bb_config *config);

/* How a model file is read. */
typedef struct bb_import_options {
    int n_head;                                      /* attention heads, for files that do not store them; 0: the file does */
    bool for_inference;                              /* bb_model_import: load as bb_model_load_for_inference does */
    void (*on_notice)(void *user, const char *text); /* may be NULL; says what was assumed or changed while reading */
    void *user;
} bb_import_options;
BB_API void bb_import_options_default(bb_import_options *options);
/* Whether `path` is a Hugging Face folder, which functions that read model files accept: it has a config.json not of a run. */
BB_API bool bb_is_hf_folder(const char *path);
/* Reads only the configuration of a model file. options and trained_length (see bb_model_trained_length) may be NULL. */
BB_API bb_status bb_config_load(const char *path, const bb_import_options *options, bb_config *out, int *trained_length,
                                bb_error *err);

/* Memory use of a run in bytes, without about 20 MB for the program. scratch is approximate. */
typedef struct bb_memory_estimate {
    uint64_t parameters, gradients, optimizer, activations, quantized_weights, scratch, total;
    uint64_t checkpoint_copy; /* copy that checkpoints are written from; included in total; 0: none, see bb_save_copy */
    uint64_t reduction;       /* partial gradient sums and exchange buffers; included in total */
    uint64_t inference_weights, kv_cache, inference_total;
} bb_memory_estimate;

/* ADAMW: f32 moments. ADAMW8BIT: those of the blocks' matrices in 8 bits. MUON: orthogonalized momentum in bf16 for the blocks'
 * matrices, ADAMW for the embedding and the norms. */
typedef enum bb_optimizer_kind { BB_OPTIM_ADAMW = 0, BB_OPTIM_ADAMW8BIT = 1, BB_OPTIM_MUON = 2 } bb_optimizer_kind;

/* Training with these batches, and inference over seq_len bytes. */
typedef struct bb_memory_request {
    bb_optimizer_kind optim;
    int batch_size, seq_len;
    bool recompute; /* see bb_train_options */
} bb_memory_request;

BB_API bb_status bb_memory_predict(bb_device *device, const bb_config *config, const bb_memory_request *request,
                                   bb_memory_estimate *out, bb_error *err);

typedef struct bb_model bb_model;

/* A model with randomly initialized weights. */
BB_API bb_status bb_model_create(bb_device *device, const bb_config *config, uint64_t seed, bb_model **out, bb_error *err);
/* path: a model file, a checkpoint, or another format that can be read. Values must be finite. */
BB_API bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err);
/* For inference only, also from packed files. Ternary weights take at most two bits each; logits are the same. */
BB_API bb_status bb_model_load_for_inference(bb_device *device, const char *path, bb_model **out, bb_error *err);
/* Either of these, with options. */
BB_API bb_status bb_model_import(bb_device *device, const char *path, const bb_import_options *options, bb_model **out,
                                 bb_error *err);
BB_API bb_status bb_model_save(const bb_model *model, const char *path, bb_error *err);
/* Saves a model loaded for inference as a packed file, about 1/16 the size. path must not be the file it was loaded from. */
BB_API bb_status bb_model_export_packed(const bb_model *model, const char *path, bb_error *err);

typedef struct bb_export_options {
    const char *format;                       /* see bb_export_format_name; NULL: bb_export_format_for(out), else "packed" */
    const char *type;                         /* weight type, for formats with several; NULL: the format's default */
    const char *name, *description, *license; /* UTF-8, for formats that store them (gguf, hf); NULL: omitted */
    int n_head;                               /* only for model files that do not store it; 0: stored */
    void (*on_notice)(void *user, const char *text);                          /* see bb_import_options; may be NULL */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: stop and leave no file */
} bb_export_options;

BB_API void bb_export_options_default(bb_export_options *options);
/* The name of export format `index`; NULL past the last. */
BB_API const char *bb_export_format_name(int index);
/* The format that a name implies: "gguf" for *.gguf, "hf" for a folder or a name that ends in "/"; NULL: none. */
BB_API const char *bb_export_format_for(const char *out);
/* Converts model file `model` to `out`. On failure nothing is left. `out` must not be `model` or a file of it; "hf" writes a
 * folder, which must be new or empty. The device quantizes the weights. */
BB_API bb_status bb_export(bb_device *device, const char *model, const char *out, const bb_export_options *options,
                           bb_error *err);
/* BB_ERR_ARGUMENT if writing `path` would replace a training checkpoint, or the config.json, latest or best of a run. */
BB_API bb_status bb_output_check(const char *path, bb_error *err);
BB_API void bb_model_free(bb_model *model);
BB_API const bb_config *bb_model_config(const bb_model *model);
BB_API uint64_t bb_model_parameters(const bb_model *model);
/* Longest sequence that the model was trained on, in bytes; 2048 if the file does not say. */
BB_API int bb_model_trained_length(const bb_model *model);

typedef struct bb_tensor_info {
    const char *name; /* e.g. "blocks.0.attn.q_proj.weight"; lives as long as the model */
    int rank;         /* 1 or 2 */
    int64_t shape[2];
    bool decays;  /* weight decay applies */
    bool ternary; /* weight of a BitLinear layer */
} bb_tensor_info;

BB_API int bb_model_tensor_count(const bb_model *model);
BB_API bb_status bb_model_tensor_info(const bb_model *model, int index, bb_tensor_info *out, bb_error *err);
/* Copies `count` f32 values of a tensor or of its gradient. Ternary tensors of an inference model give scale * q. */
BB_API bb_status bb_model_get_tensor(const bb_model *model, const char *name, float *out, size_t count, bb_error *err);
/* Every value must be finite. */
BB_API bb_status bb_model_set_tensor(bb_model *model, const char *name, const float *values, size_t count, bb_error *err);
BB_API bb_status bb_model_get_gradient(const bb_model *model, const char *name, float *out, size_t count, bb_error *err);

/* Allocates the workspace for batches up to (batch_size, seq_len), so that later calls do not. Optional. */
BB_API bb_status bb_model_reserve(bb_model *model, int batch_size, int seq_len, bool training, bool recompute, bb_error *err);
/* x: (B,T) bytes -> logits: (B,T,V). */
BB_API bb_status bb_model_forward(bb_model *model, const uint8_t *x, int batch_size, int seq_len, float *logits, bb_error *err);

/* x, y: (batch_size, seq_len) bytes; y[i] is the target after x[i]. */
typedef struct bb_train_batch {
    const uint8_t *x, *y;
    int batch_size, seq_len;
} bb_train_batch;

/* Mean cross-entropy in nats. */
BB_API bb_status bb_model_loss(bb_model *model, const bb_train_batch *batch, double *loss, bb_error *err);
/* Also adds scale * d(loss)/d(parameter) to every gradient, unless the loss is not finite. */
BB_API bb_status bb_model_loss_backward(bb_model *model, const bb_train_batch *batch, double scale, double *loss,
                                        bb_error *err);
BB_API bb_status bb_model_zero_gradients(bb_model *model, bb_error *err);

/* ---- Quantization and the BitLinear layer ---------------------------------------------------------------------------- */

/* w: (rows, cols), finite -> q in {-1,0,1} with one scale: w ~ scale * q. */
BB_API bb_status bb_ternary_quantize(bb_device *device, const float *w, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                     bb_error *err);
/* x: (rows, cols), finite -> q in [-127,127] with one scale per row: x[t] ~ scale[t] * q[t]. */
BB_API bb_status bb_act_quantize(bb_device *device, const float *x, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                 bb_error *err);

typedef struct bb_bitlinear bb_bitlinear;

typedef struct bb_bitlinear_options {
    int in_features, out_features;
    bool act_quant;
    bb_ste ste;
    uint64_t seed; /* for the initial weight */
} bb_bitlinear_options;

/* weight: (out_features, in_features), no bias. */
BB_API bb_status bb_bitlinear_create(bb_device *device, const bb_bitlinear_options *options, bb_bitlinear **out, bb_error *err);
BB_API void bb_bitlinear_free(bb_bitlinear *layer);
BB_API bb_status bb_bitlinear_get_weight(const bb_bitlinear *layer, float *weight, bb_error *err);
/* Every value must be finite. */
BB_API bb_status bb_bitlinear_set_weight(bb_bitlinear *layer, const float *weight, bb_error *err);
/* x: (rows, in) -> y: (rows, out). Saves what backward needs. */
BB_API bb_status bb_bitlinear_forward(bb_bitlinear *layer, const float *x, int64_t rows, float *y, bb_error *err);
/* dy: (rows, out), for the last forward -> dx: (rows, in), dweight: (out, in). Overwrites both; either may be NULL. */
BB_API bb_status bb_bitlinear_backward(bb_bitlinear *layer, const float *dy, int64_t rows, float *dx, float *dweight,
                                       bb_error *err);

/* ---- Data ------------------------------------------------------------------------------------------------------------ */

typedef struct bb_dataset bb_dataset;

/* How samples are drawn. A sample depends only on (seed, its number, seq_len). */
typedef enum bb_sampling {
    BB_SAMPLING_EPOCHS = 0,      /* each epoch draws an offset, then visits every window at stride seq_len once */
    BB_SAMPLING_WITH_REPLACEMENT /* any window each time; for runs begun before epochs existed */
} bb_sampling;

/* Draws windows of seq_len + 1 bytes from raw byte shards. data: a directory (its shard_*.bin), a glob, or one file. */
BB_API bb_status bb_byte_shard_dataset_open(const char *data, int seq_len, uint64_t seed, int rank, int world_size,
                                            bb_dataset **out, bb_error *err);
/* Draws from one file of raw bytes. */
BB_API bb_status bb_byte_stream_dataset_open(const char *path, int seq_len, uint64_t seed, int rank, int world_size,
                                             bb_dataset **out, bb_error *err);
BB_API void bb_dataset_close(bb_dataset *dataset);
BB_API bb_status bb_dataset_set_seq_len(bb_dataset *dataset, int seq_len, bb_error *err);
BB_API int bb_dataset_seq_len(const bb_dataset *dataset);

typedef struct bb_dataset_info {
    int64_t shards, bytes;  /* usable */
    int64_t skipped_shards; /* shorter than seq_len + 1 */
    const char *warning;    /* NULL, or one line about skipped shards */
} bb_dataset_info;
BB_API bb_dataset_info bb_dataset_get_info(const bb_dataset *dataset);

/* Micro-batch `micro` (0 <= micro < grad_accum) of this rank in the current step. A step is the next
 * grad_accum * batch_size * world_size samples of the whole job. x, y: (batch_size, seq_len). bb_dataset_next_step advances. */
BB_API bb_status bb_dataset_batch(bb_dataset *dataset, int batch_size, int grad_accum, int micro, uint8_t *x, uint8_t *y,
                                  bb_error *err);
BB_API void bb_dataset_next_step(bb_dataset *dataset, int batch_size, int grad_accum);
/* Samples drawn by the whole job; a dataset has no other state. */
BB_API uint64_t bb_dataset_position(const bb_dataset *dataset);
BB_API void bb_dataset_set_position(bb_dataset *dataset, uint64_t samples);
/* Number of passes over the data that `samples` sequences of seq_len bytes make. */
BB_API double bb_dataset_epochs(const bb_dataset *dataset, int seq_len, double samples);

/* Reads a file, a pipe or standard input ("-"), decompressed and in UTF-8. BB_ERR_FORMAT if it is not text, such as a model.
 * *text has a NUL after its last byte; free it with bb_string_free. stop (may be NULL): non-zero cancels. */
BB_API bb_status bb_read_text(const char *path, const volatile int *stop, char **text, size_t *size, bb_error *err);

/* Format of all inputs. AUTO goes by extension: .json, .jsonl and .ndjson are JSON, everything else is text. */
typedef enum bb_input_format { BB_INPUT_AUTO = 0, BB_INPUT_TEXT, BB_INPUT_JSON_LINES, BB_INPUT_JSON } bb_input_format;

typedef struct bb_pack_options {
    const char *const *inputs; /* files and folders; "-": standard input */
    int input_count;
    const char *out_dir;
    double shard_size_gb;    /* 2 (10^9 bytes) */
    int sep_byte;            /* 0..255 between documents, -1 none */
    const char *const *exts; /* without dot, for files found in folders; "all" or "*": every file */
    int ext_count;
    double val_frac;              /* validation share, from the end of the data; 0 <= val_frac < 1 */
    const char *const *json_keys; /* the first key found wins */
    int json_key_count;
    bb_input_format input_format;
    bool strict;    /* stop at the first unreadable or malformed input */
    bool overwrite; /* replace the shards of an earlier pack */
    void (*on_progress)(void *user, int64_t files_done, int64_t files_total, int64_t bytes_done);
    void (*on_skip)(void *user, const char *path, const char *reason);
    void (*on_note)(void *user, const char *message); /* called once: files in folders with other extensions */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: stop and leave nothing that looks complete */
} bb_pack_options;

typedef struct bb_pack_result {
    int64_t files, documents; /* packed */
    int64_t bytes, val_bytes; /* bytes of all shards; of the val shards among them */
    int64_t shards, val_shards;
    int64_t skipped, left_out; /* unreadable files and records; files in folders left out for their extension */
} bb_pack_result;

BB_API void bb_pack_options_default(bb_pack_options *options);
BB_API bb_status bb_pack(const bb_pack_options *options, bb_pack_result *result, bb_error *err);

/* ---- Training -------------------------------------------------------------------------------------------------------- */

/* The order of gradient summation, which is fixed for a number of ranks. FAST: each rank accumulates its micro-batches, then
 * ranks are summed. EXACT: sums by micro-batch, so that 1, 2, 4, … ranks give bit-identical checkpoints if they divide the
 * number of micro-batches. Takes more time and memory if a rank has several micro-batches per step. */
typedef enum bb_reduce { BB_REDUCE_FAST = 0, BB_REDUCE_EXACT = 1 } bb_reduce;

/* After a linear warm-up: a cosine down to the last step; constant; constant, then linear over the last steps (cooldown). */
typedef enum bb_lr_schedule { BB_LR_COSINE = 0, BB_LR_CONSTANT = 1, BB_LR_LINEAR = 2 } bb_lr_schedule;
typedef struct bb_lr_plan {
    bb_lr_schedule schedule;
    double base_lr, min_factor; /* COSINE, LINEAR: ends at base_lr * min_factor */
    int64_t warmup_steps, total_steps;
    double cooldown_frac; /* LINEAR: part of total_steps */
} bb_lr_plan;

BB_API double bb_lr_for_step(const bb_lr_plan *plan, int64_t step);
/* The sequence length curriculum: 2048, 4096, 8192 by progress, at most `cap` (0: no cap). */
BB_API int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap);
BB_API double bb_bits_per_byte(double loss_nats);

typedef struct bb_optimizer bb_optimizer;
typedef struct bb_optimizer_options {
    bb_optimizer_kind kind;
    double lr, weight_decay, beta1, beta2, eps;
    double lr_adam;      /* MUON: the rate of what AdamW updates, where lr is that of the matrices; follows the same schedule */
    double momentum;     /* MUON */
    bool decay_all;      /* decay every parameter, not only 2-D weights */
    bb_dist *share_over; /* shards the moments over these ranks (ZeRO stage 1); results are the same. NULL: not sharded.
                            Must outlive the optimizer. Only a trainer with the same dist may then call bb_optimizer_step.
                            Until train returns, a rank's f32 copies of weights that other ranks update are stale */
} bb_optimizer_options;

BB_API void bb_optimizer_options_default(bb_optimizer_options *options);
/* Optimizes the parameters of `model`, which must outlive it. */
BB_API bb_status bb_optimizer_create(bb_model *model, const bb_optimizer_options *options, bb_optimizer **out, bb_error *err);
BB_API void bb_optimizer_free(bb_optimizer *optimizer);
BB_API bool bb_optimizer_is_8bit(const bb_optimizer *optimizer);
BB_API uint64_t bb_optimizer_state_bytes(const bb_optimizer *optimizer); /* of this process */
/* Divides the gradients by loss_scale (1: unscaled), clips their global norm to max_norm (0: no clipping), and updates once.
 * If the gradient norm is not finite, nothing changes and *applied is false. */
BB_API bb_status bb_optimizer_step(bb_optimizer *optimizer, double lr, double max_norm, double loss_scale, double *grad_norm,
                                   bool *applied, bb_error *err);

/* Dynamic loss scaling for fp16 gradients: the scale doubles after `growth_interval` good steps and halves on overflow. */
typedef struct bb_loss_scaler bb_loss_scaler;
BB_API bb_status bb_loss_scaler_create(double initial_scale, int growth_interval, bool enabled, bb_loss_scaler **out,
                                       bb_error *err);
BB_API void bb_loss_scaler_free(bb_loss_scaler *scaler);
BB_API double bb_loss_scaler_scale(const bb_loss_scaler *scaler); /* 1 if disabled */
BB_API void bb_loss_scaler_update(bb_loss_scaler *scaler, bool found_overflow);

typedef struct bb_trainer bb_trainer;

/* Whether checkpoints are written from a copy while training continues; else the next update waits for the file. AUTO: copy
 * unless it takes more than 1/8 of the host's memory. */
typedef enum bb_save_copy { BB_SAVE_COPY_AUTO = 0, BB_SAVE_COPY_YES, BB_SAVE_COPY_NO } bb_save_copy;

typedef enum bb_train_event_kind {
    BB_TRAIN_STEP = 0,   /* after every step */
    BB_TRAIN_VALIDATION, /* val_bpb was measured */
    BB_TRAIN_SAVED,      /* `path` holds the complete checkpoint of `step`, maybe some steps ago */
    BB_TRAIN_NOTICE      /* `message` is for the user: skipped step, short shard, … */
} bb_train_event_kind;

typedef struct bb_train_event {
    bb_train_event_kind kind;
    int64_t step, total_steps; /* steps done, after this one */
    int seq_len;
    double loss, bpb, lr, grad_norm, val_bpb;
    double bytes_per_second, elapsed_seconds, eta_seconds;                  /* in this call of train */
    int64_t bytes_seen;                                                     /* trained on by the whole job since step 0 */
    int64_t skipped_steps, skipped_micro_batches, best_step, patience_left; /* best, left: validation with patience, else -1 */
    bool logged;                                                            /* this step goes to metrics.jsonl */
    double pause_seconds; /* BB_TRAIN_SAVED: how long training paused for it */
    /* Shares of the time since the last logged step. wait_share: waiting for other ranks, mean over ranks. exposed_share: the
     * minimum over ranks, summed over steps: communication not hidden by computation. */
    double wait_share, exposed_share;
    const char *path, *message;
} bb_train_event;

typedef struct bb_train_options {
    int64_t steps, warmup_steps; /* warmup_steps -1: int(warmup_frac * steps) */
    int64_t stop_at;             /* save and return after this step; schedules still use `steps`; 0: off */
    double warmup_frac;
    bb_lr_schedule lr_schedule;
    double lr_min_factor, cooldown_frac; /* see bb_lr_plan */
    double grad_clip;
    double spike_skip; /* skip steps whose loss or gradient norm exceeds the mean of the last 64 applied steps by this many
                          standard deviations; 0: off. Ten in a row end the run with BB_ERR_NUMERIC */
    int batch_size, grad_accum; /* per rank */
    int64_t global_batch;       /* sequences per step in the whole job, replaces grad_accum; 0: off */
    bb_dist *dist;              /* NULL: this process only. Must outlive the trainer */
    bb_reduce reduce;
    int seq_len;                     /* 0: the curriculum */
    int seq_len_cap;                 /* 0: none */
    bool recompute;                  /* keep only block inputs; recompute other activations in backward */
    int log_every, save_every, keep; /* keep: number of newest checkpoints to keep; 0: all */
    int keep_every;                  /* also keep checkpoints of steps divisible by this; 0: off */
    bool save_sync;                  /* wait until each checkpoint is written */
    bb_save_copy save_copy;
    double save_minutes;   /* also save when the last checkpoint is this old; 0: off */
    double max_minutes;    /* save and return before the trainer is this old; 0: off */
    double budget_minutes; /* after 5% of this, `steps` is set once to what fits in the rest at the speed so far; 0: off */
    const char *out_dir;   /* NULL: write nothing */
    bool allow_overwrite;
    const char *run_config_json;          /* text of config.json in out_dir; NULL: none */
    const char *checkpoint_config_json;   /* JSON text stored in each checkpoint, for bb_checkpoint_config; NULL: none */
    bool require_same_data;               /* resuming on different data is an error, not a BB_TRAIN_NOTICE */
    const char *val_data;                 /* NULL: no validation */
    int val_every, val_batches, patience; /* patience: end after so many validations without a better one; 0: off */
    int val_seq_len;                      /* bytes per window; 0: the training sequence length, at most 2048 */
    bool strict_val;                      /* a failed validation ends the run; otherwise it is a counted notice */
    void (*on_event)(void *user, const bb_train_event *event);
    void *user;
} bb_train_options;

BB_API void bb_train_options_default(bb_train_options *options);
/* A way to train: optimizer, rates, schedule, weight decay. BITBYTE: what was measured to learn most from a byte
 * (docs/LEARNING.md). ORIGINAL: the defaults of the PyTorch program that this one follows, and of the two functions above. */
typedef enum bb_recipe { BB_RECIPE_BITBYTE = 0, BB_RECIPE_ORIGINAL = 1 } bb_recipe;
/* Sets what a recipe decides in options that hold defaults. Either may be NULL. */
BB_API void bb_recipe_options(bb_recipe recipe, bb_train_options *options, bb_optimizer_options *optimizer);
/* The learning rates of a run with these options whose optimizer has this peak rate. */
BB_API bb_lr_plan bb_train_lr_plan(const bb_train_options *options, double base_lr);
/* Adjusts an estimate of bb_memory_predict for this rank: adds partial gradient sums and exchange buffers, and subtracts the
 * moments that other ranks hold. */
BB_API bb_status bb_memory_predict_rank(const bb_config *config, const bb_train_options *options,
                                        const bb_optimizer_options *optimizer, bb_memory_estimate *estimate, bb_error *err);
/* The caller owns model, optimizer and scaler (may be NULL), which must outlive the trainer. Allocates the memory for the whole
 * run. With several ranks, each rank has its own of these and its own dataset over the same data, opened as rank 0 of 1; the
 * trainer selects the rank's part of each step. Only rank 0 writes files and gets events. */
BB_API bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler,
                                   const bb_train_options *options, bb_trainer **out, bb_error *err);
BB_API void bb_trainer_free(bb_trainer *trainer);
/* path: a checkpoint, or a run directory (its latest valid checkpoint; a BB_TRAIN_NOTICE names each damaged one). Without
 * load_opt_state, training continues at the same step with fresh moments. Call before train. */
BB_API bb_status bb_trainer_resume(bb_trainer *trainer, const char *path, bool load_opt_state, bb_error *err);
/* Trains until `steps`, `stop_at`, `max_minutes`, the end of `patience`, or a stop request (which saves and gives
 * BB_ERR_INTERRUPTED). A request to one rank stops all. On an error, saves the last good step unless the disk or the numbers
 * caused it; the message names the latest checkpoint. If train fails on one rank, others may wait for it: call bb_dist_abort.
 * Resuming at a step whose validation was interrupted or failed validates first. */
BB_API bb_status bb_trainer_train(bb_trainer *trainer, bb_dataset *dataset, bb_error *err);
/* Async-signal-safe, on any rank. stop: finish the step or cancel the validation, save, return. save: save after this step and
 * continue. */
BB_API void bb_trainer_request_stop(bb_trainer *trainer);
BB_API void bb_trainer_request_save(bb_trainer *trainer);
/* For on_event: adds a line with a text that the model wrote at the present step to metrics.jsonl. prompt, sample: UTF-8. */
BB_API bb_status bb_trainer_log_sample(bb_trainer *trainer, const char *prompt, const char *sample, bb_error *err);
BB_API int64_t bb_trainer_failed_validations(const bb_trainer *trainer); /* since creation, on rank 0 */
BB_API int64_t bb_trainer_step(const bb_trainer *trainer);
BB_API int64_t bb_trainer_total_steps(const bb_trainer *trainer); /* with a budget, as corrected */
/* How samples are drawn: the default for a new run, else as in the resumed run. */
BB_API bb_sampling bb_trainer_sampling(const bb_trainer *trainer);
BB_API const char *bb_trainer_resumed_from(const bb_trainer *trainer); /* the checkpoint that was resumed, or NULL */
/* wait_share and exposed_share (see bb_train_event) over the whole call of train; 0 for one process. */
BB_API void bb_trainer_wait_shares(const bb_trainer *trainer, double *wait_share, double *exposed_share);
BB_API bool bb_trainer_out_of_time(const bb_trainer *trainer);                   /* train returned because of max_minutes */
BB_API bool bb_trainer_out_of_patience(const bb_trainer *trainer);               /* the run has ended because of patience */
BB_API int64_t bb_trainer_best_step(const bb_trainer *trainer, double *val_bpb); /* with patience, on rank 0; -1: none */
/* The checkpoint_config_json stored in a checkpoint; NULL if none. Free it with bb_string_free. */
BB_API bb_status bb_checkpoint_config(const char *path, char **text, bb_error *err);
/* A run directory's newest checkpoint; the newest before a step; what a `latest` or `best` names (else `given` itself). */
BB_API bb_status bb_run_latest_checkpoint(const char *run_dir, char *path, size_t path_size, bb_error *err);
BB_API bb_status bb_run_checkpoint_before(const char *run_dir, int64_t before, char *path, size_t path_size, bb_error *err);
BB_API bb_status bb_run_named_checkpoint(const char *given, char *path, size_t path_size, bb_error *err);
/* Finds the latest valid checkpoint of a run directory: calls `load` on each, newest first, while it returns BB_ERR_IO,
 * BB_ERR_FORMAT or BB_ERR_DATA (damaged), and returns its last status. on_damaged (may be NULL) gets each damaged one. */
BB_API bb_status bb_run_latest_valid(const char *run_dir, bb_status (*load)(void *user, const char *path, bb_error *err),
                                     void (*on_damaged)(void *user, const char *path, const char *reason), void *user,
                                     bb_error *err);

/* ---- Training by a budget of time --------------------------------------------------------------------------------------- */

/* The shape of about so many parameters: "1m", "3m", "10m", "25m", "85m", "200m" or "680m". */
BB_API bb_status bb_config_of_size(const char *size, bb_config *out, bb_error *err);

/* What 0 or NULL leaves open is chosen. */
typedef struct bb_plan_request {
    double minutes;
    int64_t data_bytes;
    const char *size;        /* see bb_config_of_size */
    const bb_config *config; /* instead of a size */
    int seq_len, batch_size, grad_accum, global_batch;
    const bb_optimizer_options *optimizer; /* whose speed is measured; share_over is ignored. NULL: the default recipe */
    bb_dist *dist;                         /* that will train: all its ranks call bb_plan_run. NULL: this process */
} bb_plan_request;

enum { BB_PLAN_LINES = 4 };
typedef struct bb_plan {
    bb_config config;
    int seq_len, batch_size, grad_accum; /* as in bb_train_options */
    bool recompute;
    int64_t steps;
    double budget_minutes;          /* for bb_train_options: the time, unless the data bounds the run */
    double bytes_per_second;        /* of the whole job, measured or, for large models, estimated */
    char lines[BB_PLAN_LINES][160]; /* what was chosen, and why */
} bb_plan;

/* Measures how fast `device` trains (some seconds) and chooses what makes the most of the time (docs/LEARNING.md). */
BB_API bb_status bb_plan_run(bb_device *device, const bb_plan_request *request, bb_plan *out, bb_error *err);
/* Estimates from a trial of about two seconds how fast one process trains this model. */
BB_API bb_status bb_training_speed(bb_device *device, const bb_config *config, int seq_len, double *speed, bb_error *err);

/* ---- Evaluation ------------------------------------------------------------------------------------------------------ */

/* Storage of the KV cache: 6 or 8 bits with one scale per position and head, or f32. */
typedef enum bb_kv_type { BB_KV_INT6 = 0, BB_KV_INT8, BB_KV_F32 } bb_kv_type;

typedef struct bb_eval_options {
    int seq_len, batch_size;
    bool sliding;        /* windows overlap: each byte has at least seq_len / 2 bytes of context, except at the start */
    bool cached;         /* evaluate through a KV cache, a few bytes at a time, as generation does; much slower */
    bb_kv_type kv_cache; /* with `cached` */
    int64_t max_batches; /* 0: all */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total, double bpb_so_far); /* total 0: unknown */
    void *user;
    const volatile int *stop;
} bb_eval_options;
typedef struct bb_eval_result {
    double bpb, loss, seconds;
    int64_t bytes, files; /* bytes scored */
    const char *pattern;  /* files scored in a directory: "val_*.bin" or "shard_*.bin"; NULL: not a directory */
} bb_eval_result;
BB_API void bb_eval_options_default(bb_eval_options *options);
/* data: a directory (its val_*.bin, else its shard_*.bin), a glob, or input for bb_read_text. Scores every byte once, except
 * the first of each file. */
BB_API bb_status bb_evaluate(bb_model *model, const char *data, const bb_eval_options *options, bb_eval_result *result,
                             bb_error *err);

/* ---- Generation ------------------------------------------------------------------------------------------------------ */

typedef struct bb_bytes {
    const uint8_t *data;
    size_t size;
} bb_bytes;

/* Speculative decoding: drafts bytes from the text or with a draft model, and verifies several in one pass. Same output. */
typedef enum bb_speculate {
    BB_SPECULATE_OFF = 0,
    BB_SPECULATE_AUTO,  /* adapts the number of draft bytes to the measured acceptance and cost; may be 0 */
    BB_SPECULATE_ALWAYS /* even if slower */
} bb_speculate;

typedef struct bb_generate_options {
    int64_t max_new_bytes;
    /* Sampling, applied in this order. */
    double repetition_penalty; /* 1: off. For bytes among the last repetition_window of the text, prompt included: positive
                                * logits are divided by it, negative ones multiplied */
    int repetition_window;     /* 1..65536 */
    double temperature;        /* divides the logits; 0: greedy, and the options below have no effect */
    int top_k;                 /* keep the k most likely bytes; 0: off */
    double top_p;              /* keep the smallest set of most likely bytes with at least this probability; 1: off */
    double min_p;              /* keep bytes with at least this fraction of the highest probability; 0: off */
    uint64_t seed;             /* draw i depends only on (seed, i) and the logits */
    /* Generation ends when its output ends with one of these (the longest that matches), which is not part of the output. Bytes
     * that may begin one are held back until decided. */
    const bb_bytes *stops;
    int stop_count;
    bb_speculate speculate;
    int context_length; /* these three: bb_generate only; see bb_session_options */
    bb_kv_type kv_cache;
    bb_model *draft;
    /* Called for each new byte; return false to stop after it. */
    bool (*on_byte)(void *user, uint8_t byte);
    void *user;
} bb_generate_options;
typedef struct bb_generate_metrics {
    int64_t prompt_bytes, new_bytes; /* new_bytes includes those of a stop text */
    int64_t context_restarts;        /* times that the context was full and its older half dropped */
    int stop;                        /* index of the stop text that ended generation; -1: none */
    int64_t passes;                  /* forward passes after the prompt */
    int64_t drafted, accepted;       /* draft bytes verified; those accepted */
    double prompt_seconds, decode_seconds, first_byte_seconds;
    double mean_logprob; /* of the new bytes under the unmodified distribution, in nats */
} bb_generate_metrics;
BB_API void bb_generate_options_default(bb_generate_options *options);

/* A growing text, fed and generated, with a KV cache of its last bytes. When the context is full, the older half is dropped
 * and the newer half is read again from position 0. If a feed does not fit, only its last bytes are read, up to 3/4 of the
 * context. A model may have several sessions; use one at a time. */
typedef struct bb_session bb_session;
typedef struct bb_session_options {
    int context_length; /* context window in bytes; 0: the model's trained length */
    bb_kv_type kv_cache;
    /* NULL, or a smaller model on any device, trained on similar text, which drafts bytes. It must outlive the session, and is
     * in use whenever the session is. */
    bb_model *draft;
    /* May be NULL. Called while a long prompt is read; false cancels (BB_ERR_INTERRUPTED) and keeps what was read. */
    bool (*on_read)(void *user, int64_t done, int64_t total);
    void *user;
} bb_session_options;
BB_API void bb_session_options_default(bb_session_options *options);
BB_API bb_status bb_session_open(bb_model *model, const bb_session_options *options, bb_session **out, bb_error *err);
BB_API void bb_session_close(bb_session *session);
/* Appends bytes to the text and reads them; count may be 0. */
BB_API bb_status bb_session_feed(bb_session *session, const uint8_t *bytes, size_t count, bb_error *err);
/* Continues the text, or starts one as if after a newline. metrics (may be NULL): prompt_* count what was fed since the session
 * was opened or last generated. */
BB_API bb_status bb_session_generate(bb_session *session, const bb_generate_options *options, bb_generate_metrics *metrics,
                                     bb_error *err);
/* Length of the text in bytes, including bytes dropped from the context. */
BB_API int64_t bb_session_length(const bb_session *session);
/* mark saves the current end of the text and replaces an earlier mark. rewind, any number of times, drops everything after it.
 * It is nearly free unless the context has been full since the mark; then the marked context is read again. */
BB_API bb_status bb_session_mark(bb_session *session, bb_error *err);
BB_API bb_status bb_session_rewind(bb_session *session, bb_error *err);
/* Empties the text and removes the mark. */
BB_API void bb_session_clear(bb_session *session);

/* Opens a session, feeds the prompt (length may be 0), generates, closes. */
BB_API bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *options,
                             bb_generate_metrics *metrics, bb_error *err);

/* ---- Many texts at once ---------------------------------------------------------------------------------------------- */

/* Continues many texts together, one byte or more of each in a pass of the model. Requests join and leave between steps. Each gets
 * the bytes and logprobs that it would get alone, bit for bit. Prompts are read in pieces between the bytes of the other texts; a
 * beginning that a prompt shares with another text in memory is copied, not read again. Callbacks may add and cancel requests. */
typedef struct bb_batch bb_batch;
typedef struct bb_batch_options {
    int max_sequences;    /* texts in a pass, 1 to 256; further requests wait in the order in which they came */
    int keep;             /* texts kept after their end for prompts that begin with them, e.g. turns of a conversation */
    uint64_t cache_bytes; /* limit of all KV caches; what does not fit waits; 0: none */
    bb_model *draft;      /* see bb_session_options */
} bb_batch_options;
BB_API void bb_batch_options_default(bb_batch_options *options); /* 16 sequences, 8 kept, no limit */
BB_API bb_status bb_batch_open(bb_model *model, const bb_batch_options *options, bb_batch **out, bb_error *err);
/* Drops all requests without a callback. Not from a callback. */
BB_API void bb_batch_close(bb_batch *batch);

typedef struct bb_candidate {
    uint8_t byte;
    double logprob; /* nats, under the unmodified distribution */
} bb_candidate;
typedef struct bb_batch_byte {
    uint8_t byte;
    bool prompt;    /* a byte of the prompt, see prompt_logprobs */
    double logprob; /* NAN for the first byte of a prompt, which nothing predicts */
    const bb_candidate *top;
    int top_count; /* the likeliest bytes, likeliest first */
} bb_batch_byte;

typedef enum bb_finish {
    BB_FINISH_LENGTH = 0, /* max_new_bytes were generated */
    BB_FINISH_STOP,       /* a stop text; see metrics.stop */
    BB_FINISH_CALLER,     /* cancelled, or a callback returned false */
    BB_FINISH_ERROR       /* see error */
} bb_finish;
typedef struct bb_batch_end {
    bb_finish finish;
    bb_generate_metrics metrics;
    int64_t shared_bytes;   /* of the prompt, copied from other texts */
    const float *embedding; /* (d_model): mean of the last hidden states over the prompt; NULL unless asked for */
    const bb_error *error;  /* NULL unless finish is BB_FINISH_ERROR */
} bb_batch_end;

/* Callbacks run in bb_batch_step and may be NULL. */
typedef struct bb_batch_request {
    bb_bytes prompt;                    /* copied; may be empty */
    const bb_generate_options *options; /* copied, with its stop texts; draft and on_byte are not used */
    bool prompt_logprobs;               /* report the prompt's bytes to on_byte too; it must fit the context */
    bool embed;                         /* compute an embedding; the prompt must fit the context */
    int top;                            /* number of candidates for on_byte, 0 to 256 */
    bool (*on_byte)(void *user, const bb_batch_byte *byte);   /* each byte that is final; false ends the text after it */
    void (*on_logits)(void *user, float *logits);             /* (256) before each draw: may change them */
    bool (*on_read)(void *user, int64_t done, int64_t total); /* see bb_session_options */
    void (*on_end)(void *user, const bb_batch_end *end);      /* called once, last */
    void *user;
} bb_batch_request;
BB_API bb_status bb_batch_add(bb_batch *batch, const bb_batch_request *request, int64_t *id, bb_error *err);
/* Ends a request at the next step; unknown ids are ignored. */
BB_API void bb_batch_cancel(bb_batch *batch, int64_t id);
/* One pass over all texts. *more: whether any request is left. On an error the batch can only be closed. */
BB_API bb_status bb_batch_step(bb_batch *batch, bool *more, bb_error *err);

typedef struct bb_batch_state {
    int active, waiting, kept; /* texts */
    uint64_t cache_bytes;      /* allocated for KV caches */
} bb_batch_state;
BB_API bb_batch_state bb_batch_get_state(const bb_batch *batch);

/* ---- Scoring --------------------------------------------------------------------------------------------------------- */

/* How well a model predicts a text: bits, which divided by its bytes are bits per byte. */
typedef struct bb_score_text {
    bb_bytes context; /* read before it, not scored; empty: a newline */
    bb_bytes text;
    double bits;         /* out */
    float *byte_bits;    /* out: (text.size), or NULL */
    uint8_t *byte_ranks; /* out: (text.size), or NULL; how many bytes the model thought likelier. Slower */
} bb_score_text;
typedef struct bb_score_options {
    int seq_len; /* bytes that the model sees at once, at least 2; 0: its trained length, at most 2048. In longer texts each byte
                  * has at least half of that before it */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: stop with BB_ERR_INTERRUPTED */
} bb_score_options;
BB_API void bb_score_options_default(bb_score_options *options);
/* Scores many texts at once; short ones share passes of the model. */
BB_API bb_status bb_score(bb_model *model, bb_score_text *texts, int64_t count, const bb_score_options *options, bb_error *err);

/* ---- Compression ----------------------------------------------------------------------------------------------------- */

/* Lossless compression with a model's predictions (docs/FORMAT.md). The same stream on every processor and for any number of
 * threads; it can only be read with the same model. Any input; never more than 0.1% and 64 bytes larger. */
typedef struct bb_compress_options {
    int lanes;           /* parts of a block that are coded together, 1 to 64: more are faster, fewer are smaller */
    int block_bytes;     /* a power of two from 65536 to 16777216; memory is some times this */
    int context_length;  /* bytes that the model sees at once; 0: its trained length, at most 1024 */
    bb_kv_type kv_cache; /* these four: of bb_compressor_open; a stream knows its own */
    /* Takes the output, in order; false ends the work with BB_ERR_IO. */
    bool (*on_output)(void *user, const uint8_t *bytes, size_t size);
    void (*on_progress)(void *user, int64_t bytes_done); /* uncompressed; may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: BB_ERR_INTERRUPTED */
} bb_compress_options;
BB_API void bb_compress_options_default(bb_compress_options *options); /* as level 5 */
/* Sets lanes, block_bytes and context_length: 1 is the fastest, 9 the smallest. */
BB_API bb_status bb_compress_options_level(bb_compress_options *options, int level, bb_error *err);

typedef struct bb_compressor bb_compressor;
BB_API bb_status bb_compressor_open(bb_model *model, const bb_compress_options *options, bb_compressor **out, bb_error *err);
BB_API bb_status bb_compressor_write(bb_compressor *compressor, const uint8_t *bytes, size_t size, bb_error *err);
BB_API bb_status bb_compressor_finish(bb_compressor *compressor, bb_error *err); /* writes the rest and the end */
BB_API void bb_compressor_close(bb_compressor *compressor);

typedef struct bb_decompressor bb_decompressor;
BB_API bb_status bb_decompressor_open(bb_model *model, const bb_compress_options *options, bb_decompressor **out,
                                      bb_error *err);
/* BB_ERR_FORMAT says at which byte the stream is damaged, or that it was made with another model. Output is given block by block,
 * each checked. */
BB_API bb_status bb_decompressor_write(bb_decompressor *decompressor, const uint8_t *bytes, size_t size, bb_error *err);
BB_API bb_status bb_decompressor_finish(bb_decompressor *decompressor, bb_error *err); /* fails if the stream is cut short */
BB_API void bb_decompressor_close(bb_decompressor *decompressor);
BB_API bool bb_is_compressed(const uint8_t *bytes, size_t size); /* whether a stream begins so */
/* JSON: format, version, model, parameters, bytes, compressed_bytes, bits_per_byte, blocks by kind, … Reads the heads of the blocks
 * only. Free it with bb_string_free. */
BB_API bb_status bb_compressed_describe(const char *path, char **json, bb_error *err);

/* ---- Information ----------------------------------------------------------------------------------------------------- */

/* Describes a model file as JSON: configuration, parameters, training state, and of each ternary tensor its scale and shares of
 * -1, 0 and +1. Free it with bb_string_free. options may be NULL. */
BB_API bb_status bb_describe_file(const char *path, const bb_import_options *options, char **json, bb_error *err);
/* Checks the checksums (docs/FORMAT.md) and values of a model file. JSON: `good`, and `failures` with `tensor` and `reason`;
 * free it with bb_string_free. Returns BB_OK even if the content is damaged. options may be NULL. */
BB_API bb_status bb_verify_file(const char *path, const bb_import_options *options,
                                void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total), void *user,
                                bool *good, char **json, bb_error *err);
BB_API void bb_string_free(char *text);
/* Convert a path to UTF-8 and back. If it is not UTF-8 or contains "\x", bytes above 0x7f and backslashes become \xHH. Free the
 * result with bb_string_free; NULL: out of memory. */
BB_API char *bb_path_text(const char *path);
BB_API char *bb_path_from_text(const char *text);

/* Wraps `device` and times each operation of models created on the wrapper; results are the same. The caller still closes
 * `device`, later, and must not use it directly meanwhile. First measures the peaks: about one second and 0.5 GB. */
BB_API bb_status bb_profile_open(bb_device *device, bb_device **out, bb_error *err);
BB_API bb_status bb_profile_start(bb_device *profiled, bb_error *err); /* resets all timings */
/* JSON (free it with bb_string_free): `operations`, longest first, with calls, ms, percent of the time since start and, if
 * known, percent of peak; and `shares`. */
BB_API bb_status bb_profile_report(const bb_device *profiled, const bb_config *config, char **json, bb_error *err);

typedef struct bb_bench_options {
    const char *shape;       /* "S", "M" or "L" */
    int batch_size, seq_len; /* 0: the shape's batch size; 512 */
    int repeats;
    bb_optimizer_kind optim;
    bool recompute; /* as in training by default; the limit then includes the recomputation */
    bool step_only; /* do not time single operations */
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_bench_options;
BB_API void bb_bench_options_default(bb_bench_options *options);
/* Times training steps at a model shape and their operations. JSON: bytes/s and percent of measured peaks. */
BB_API bb_status bb_bench(bb_device *device, const bb_bench_options *options, char **json, bb_error *err);

typedef struct bb_decode_bench_options {
    const char *shape; /* "S", "M" or "L" */
    int repeats;
    bb_kv_type kv_cache;
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_decode_bench_options;
BB_API void bb_decode_bench_options_default(bb_decode_bench_options *options);
/* Times inference at a model shape with random weights. JSON: bytes/s of decoding at positions 0, 1,024 and 4,096 and of
 * reading 512 bytes, decoding 16 sequences at once, loading a packed file, resident memory, percent of peaks. Writes a temporary model to TMPDIR. */
BB_API bb_status bb_bench_decode(bb_device *device, const bb_decode_bench_options *options, char **json, bb_error *err);

#ifdef __cplusplus
}
#endif
#endif
