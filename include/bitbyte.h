// SPDX-License-Identifier: MIT
/* BitByte: a byte-level language model with ternary weights. The whole public C API.
 * Handles are opaque. Every function that can fail returns bb_status, gives its result through an out-parameter and, when
 * it fails, fills the caller's bb_error (which may be NULL). The library never prints, never exits, and installs no signal
 * handlers. A handle is used by one thread at a time; devices may be shared. Arrays are row-major, on the host. Where a pointer
 * may be NULL, its function says so; any other NULL is BB_ERR_ARGUMENT, and functions without a status then do nothing and return
 * 0, false or NULL. */
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
    BB_ERR_ARGUMENT,    /* a value that the caller gave is impossible; the message names it and what is allowed */
    BB_ERR_IO,          /* the operating system refused: missing file, no permission, full disk */
    BB_ERR_FORMAT,      /* a file's content is not what it should be; the message names the place */
    BB_ERR_DATA,        /* no usable training or evaluation data */
    BB_ERR_MEMORY,      /* not enough memory, found before or while allocating */
    BB_ERR_UNSUPPORTED, /* not in this build, or not on this processor; the message says how to get it */
    BB_ERR_NUMERIC,     /* the numbers went wrong (nothing finite is left to work with) */
    BB_ERR_INTERRUPTED, /* stopped because the caller asked for it */
    BB_ERR_INTERNAL,    /* a bug of ours, or a failure of a library below us */
    BB_ERR_PEER         /* another process of the job, its host, or the network to it is gone */
} bb_status;

typedef struct bb_error {
    bb_status code;
    char message[1024]; /* one line, no final newline: what, where, expected, found */
} bb_error;

BB_API const char *bb_status_name(bb_status status);
BB_API const char *bb_version(void); /* "0.1.0" */

/* ---- Device ---------------------------------------------------------------------------------------------------------- */

typedef struct bb_device bb_device;

/* name: "cpu" (oneDNN and SIMD) or "ref" (scalar, the executable definition: slow). threads: 0 takes
 * OMP_NUM_THREADS where that is set, else the processors in the affinity mask, or the CPU quota (cgroup v1 or v2, rounded up) where it
 * allows fewer. Results do not depend on it. A device outlives everything created on it.
 * Threads may share a device, each with models, layers and sessions of its own: a call has the device for itself until it returns, and
 * others wait. bb_trainer_train, bb_evaluate and bb_generate let them in between steps, batches and passes, and hold nothing during
 * callbacks. A device for each thread, with part of the threads, computes at the same time. */
BB_API bb_status bb_device_open(const char *name, int threads, bb_device **out, bb_error *err);
BB_API void bb_device_close(bb_device *device);
/* Name 0, 1, ... of those that bb_device_open takes, or NULL. *why_not (may be NULL): NULL, or why it cannot be opened here. */
BB_API const char *bb_device_known(int index, const char **why_not);
BB_API const char *bb_device_name(const bb_device *device);
BB_API int bb_device_threads(const bb_device *device);
/* One line on what is used of the processor, and the library below, e.g. "avx512_amx, oneDNN 2.6.3". */
BB_API const char *bb_device_description(const bb_device *device);
/* Bytes of memory that the device has, and that are free now; both 0 where that is not known (no /proc). */
BB_API void bb_device_memory(const bb_device *device, uint64_t *total_bytes, uint64_t *free_bytes);

/* ---- Processes that train together ------------------------------------------------------------------------------------ */

/* A job of `size` processes, the ranks 0 .. size-1. All of them make the same calls in the same order. */
typedef struct bb_dist bb_dist;

/* engine: "single" (this process alone) or "mpi" (the processes that mpirun or srun started; once in a process).
 * BB_ERR_UNSUPPORTED in a build without MPI. Where a process of the job does not come, MPI waits for it for ever: after half a
 * minute this process then says so on standard error, and ends with status 1. bb_dist_close does the same. */
BB_API bb_status bb_dist_open(const char *engine, bb_dist **out, bb_error *err);
/* Waits for the other ranks, which call it too. After a failure it only frees. */
BB_API void bb_dist_close(bb_dist *dist);
/* Ends every process of the job, this one included, with an exit status: after an error that the other ranks do not know of,
 * for which they would wait. Does not return. */
BB_API void bb_dist_abort(bb_dist *dist, int exit_status);
/* Before that, where a rank says why it ends the job: of several that fail, the first returns at once (within about a second),
 * the others when that one has not ended the job after some seconds. So a failure is said once. */
BB_API void bb_dist_wait_to_report(bb_dist *dist);
BB_API int bb_dist_rank(const bb_dist *dist);
BB_API int bb_dist_size(const bb_dist *dist);
BB_API int bb_dist_local_size(const bb_dist *dist); /* ranks on this host */
BB_API const char *bb_dist_host(const bb_dist *dist, int rank);
/* Threads for this rank's device: the processors that it may use, shared out among the ranks of the same processors. */
BB_API int bb_dist_threads(const bb_dist *dist);
/* Seconds without a heartbeat after which a rank is given up (15). One that is busy gives them too. */
BB_API void bb_dist_set_timeout(bb_dist *dist, int seconds);
/* All ranks give their status, and all get the same one: BB_OK when it is everybody's, else the failure of the lowest rank that
 * has one, its message with "rank 2 on HOST: " before it. */
BB_API bb_status bb_dist_agree(bb_dist *dist, bb_status mine, bb_error *err);
/* values: (size), one of each rank. */
BB_API bb_status bb_dist_all_gather_u64(bb_dist *dist, uint64_t mine, uint64_t *values, bb_error *err);
/* Seconds that this rank has waited for others, in all calls so far. */
BB_API double bb_dist_wait_seconds(const bb_dist *dist);

/* ---- Model ----------------------------------------------------------------------------------------------------------- */

typedef enum bb_ste { BB_STE_IDENTITY = 0, BB_STE_CLIPPED = 1 } bb_ste; /* the weight gradient's estimator */

typedef struct bb_config {
    int vocab_size; /* 256: raw bytes */
    int n_layer, d_model, n_head, n_kv_head, d_ff;
    double rope_base, norm_eps;
    bool act_quant; /* per-token int8 inputs of every BitLinear */
    bb_ste ste;
} bb_config;

BB_API void bb_config_default(bb_config *config); /* 24 layers, 1536, 12 heads, 4096 */
BB_API bb_status bb_config_check(const bb_config *config, bb_error *err);
BB_API uint64_t bb_config_parameters(const bb_config *config);
/* The configuration in a model file or checkpoint, without reading its tensors. trained_length: as bb_model_trained_length,
 * may be NULL. */
BB_API bb_status bb_config_load(const char *path, bb_config *out, int *trained_length, bb_error *err);

/* What a run would take, in bytes: the same arenas that it then allocates, and about what the device's operations need besides.
 * The program itself, with its libraries, takes some 20 MB more. */
typedef struct bb_memory_estimate {
    uint64_t parameters, gradients, optimizer, activations, quantized_weights, scratch, total;
    uint64_t checkpoint_copy; /* that a checkpoint is written from; in the total; 0: none, see bb_save_copy */
    uint64_t reduction;       /* partial sums of gradients, and what exchanges them; in the total */
    uint64_t inference_weights, kv_cache, inference_total;
} bb_memory_estimate;

typedef enum bb_optimizer_kind { BB_OPTIM_ADAMW = 0, BB_OPTIM_ADAMW8BIT = 1 } bb_optimizer_kind;

/* What is predicted: training with these batches, and inference over seq_len bytes. */
typedef struct bb_memory_request {
    bb_optimizer_kind optim;
    int batch_size, seq_len;
    bool recompute; /* as in bb_train_options */
} bb_memory_request;

BB_API bb_status bb_memory_predict(bb_device *device, const bb_config *config, const bb_memory_request *request,
                                   bb_memory_estimate *out, bb_error *err);

typedef struct bb_model bb_model;

/* New weights, initialised as SPEC says from `seed`. */
BB_API bb_status bb_model_create(bb_device *device, const bb_config *config, uint64_t seed, bb_model **out, bb_error *err);
/* A model file or a checkpoint: any safetensors file with a `config` and the named tensors. Values must be finite. */
BB_API bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err);
/* The same for bb_model_forward, bb_model_loss, bb_evaluate and bb_generate alone: ternary weights are held at two bits each
 * or fewer and in no other form, and give the same logits. Takes packed files too. */
BB_API bb_status bb_model_load_for_inference(bb_device *device, const char *path, bb_model **out, bb_error *err);
BB_API bb_status bb_model_save(const bb_model *model, const char *path, bb_error *err);
/* A model that was loaded for inference, ternary weights at two bits each: a sixteenth of a model file. The file that it was
 * loaded from is refused. */
BB_API bb_status bb_model_export_packed(const bb_model *model, const char *path, bb_error *err);

typedef struct bb_export_options {
    const char *format;                       /* "packed" (NULL: this), "hf", "gguf", ...: see bb_export_format_name */
    const char *type;                         /* of the weights, where a format has several; NULL: its default */
    const char *name, *description, *license; /* UTF-8, for formats that hold them (gguf); NULL: left out */
    int n_head;                               /* where the model's file does not say; 0: it does */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop; /* non-NULL and non-zero: stop, leaving nothing */
} bb_export_options;

BB_API void bb_export_options_default(bb_export_options *options);
/* The name of format `index` = 0, 1, ...; NULL past the last. */
BB_API const char *bb_export_format_name(int index);
/* Writes the model in file `model`, of any format that can be read, to `out` in another format: a whole file or none, and never
 * over `model`. "hf" writes a folder, which must be new or empty. The device is for quantizing. */
BB_API bb_status bb_export(bb_device *device, const char *model, const char *out, const bb_export_options *options,
                           bb_error *err);
/* BB_ERR_ARGUMENT where a file written to `path` would replace a checkpoint with training state, or a run's config.json or latest. */
BB_API bb_status bb_output_check(const char *path, bb_error *err);
BB_API void bb_model_free(bb_model *model);
BB_API const bb_config *bb_model_config(const bb_model *model);
BB_API uint64_t bb_model_parameters(const bb_model *model);
/* The longest sequence it was trained on, in bytes; 2048 where the file does not say. */
BB_API int bb_model_trained_length(const bb_model *model);

typedef struct bb_tensor_info {
    const char *name; /* e.g. "blocks.0.attn.q_proj.weight"; lives as long as the model */
    int rank;         /* 1 or 2 */
    int64_t shape[2];
    bool decays;  /* weight decay applies */
    bool ternary; /* the weight of a BitLinear */
} bb_tensor_info;

BB_API int bb_model_tensor_count(const bb_model *model);
BB_API bb_status bb_model_tensor_info(const bb_model *model, int index, bb_tensor_info *out, bb_error *err);
/* Copies of a tensor (f32, `count` elements): its values (g * q of a ternary one in a model for inference), its gradient. */
BB_API bb_status bb_model_get_tensor(const bb_model *model, const char *name, float *out, size_t count, bb_error *err);
/* Every value must be finite. */
BB_API bb_status bb_model_set_tensor(bb_model *model, const char *name, const float *values, size_t count, bb_error *err);
BB_API bb_status bb_model_get_gradient(const bb_model *model, const char *name, float *out, size_t count, bb_error *err);

/* Sizes the workspace for batches up to (batch_size, seq_len), for training (with gradients) or not; afterwards no call with
 * such a batch allocates. The calls below do it themselves where it was not done. */
BB_API bb_status bb_model_reserve(bb_model *model, int batch_size, int seq_len, bool training, bool recompute, bb_error *err);
/* x: (B,T) bytes -> logits: (B,T,V). */
BB_API bb_status bb_model_forward(bb_model *model, const uint8_t *x, int batch_size, int seq_len, float *logits, bb_error *err);

/* x and y: (batch_size, seq_len) bytes; y[i] is to be predicted after x[i]. */
typedef struct bb_batch {
    const uint8_t *x, *y;
    int batch_size, seq_len;
} bb_batch;

/* Mean cross-entropy in nats. */
BB_API bb_status bb_model_loss(bb_model *model, const bb_batch *batch, double *loss, bb_error *err);
/* The same, and adds scale * d(loss)/d(parameter) to every gradient; when the loss is not finite it adds nothing. */
BB_API bb_status bb_model_loss_backward(bb_model *model, const bb_batch *batch, double scale, double *loss, bb_error *err);
BB_API bb_status bb_model_zero_gradients(bb_model *model, bb_error *err);

/* ---- Quantization and the BitLinear layer ---------------------------------------------------------------------------- */

/* w: (rows, cols), finite -> q in {-1,0,1}, one scale: w ~ scale * q. */
BB_API bb_status bb_ternary_quantize(bb_device *device, const float *w, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                     bb_error *err);
/* x: (rows, cols), finite -> q in [-127,127], one scale a row: x[t] ~ scale[t] * q[t]. */
BB_API bb_status bb_act_quantize(bb_device *device, const float *x, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                 bb_error *err);

typedef struct bb_bitlinear bb_bitlinear;

typedef struct bb_bitlinear_options {
    int in_features, out_features;
    bool act_quant;
    bb_ste ste;
    uint64_t seed; /* of the initial weight */
} bb_bitlinear_options;

/* weight: (out_features, in_features), no bias. */
BB_API bb_status bb_bitlinear_create(bb_device *device, const bb_bitlinear_options *options, bb_bitlinear **out, bb_error *err);
BB_API void bb_bitlinear_free(bb_bitlinear *layer);
BB_API bb_status bb_bitlinear_get_weight(const bb_bitlinear *layer, float *weight, bb_error *err);
/* Every value must be finite. */
BB_API bb_status bb_bitlinear_set_weight(bb_bitlinear *layer, const float *weight, bb_error *err);
/* x: (rows, in) -> y: (rows, out). Keeps what backward needs. */
BB_API bb_status bb_bitlinear_forward(bb_bitlinear *layer, const float *x, int64_t rows, float *y, bb_error *err);
/* dy: (rows, out) of the last forward -> dx: (rows, in), dweight: (out, in), written, not added. Either may be NULL. */
BB_API bb_status bb_bitlinear_backward(bb_bitlinear *layer, const float *dy, int64_t rows, float *dx, float *dweight,
                                       bb_error *err);

/* ---- Data ------------------------------------------------------------------------------------------------------------ */

typedef struct bb_dataset bb_dataset;

/* How samples are drawn. Either way a sample is a function of (seed, its number, seq_len) alone. */
typedef enum bb_sampling {
    BB_SAMPLING_EPOCHS = 0,      /* an epoch is every window at a stride of seq_len from an offset that it draws, each once */
    BB_SAMPLING_WITH_REPLACEMENT /* any window each time: runs begun before there were epochs */
} bb_sampling;

/* Shards of raw bytes. data: a directory (its shard_*.bin), a glob, or one file. Draws windows of seq_len + 1 bytes. */
BB_API bb_status bb_byte_shard_dataset_open(const char *data, int seq_len, uint64_t seed, int rank, int world_size,
                                            bb_dataset **out, bb_error *err);
/* One file as a stream of bytes. */
BB_API bb_status bb_byte_stream_dataset_open(const char *path, int seq_len, uint64_t seed, int rank, int world_size,
                                             bb_dataset **out, bb_error *err);
BB_API void bb_dataset_close(bb_dataset *dataset);
BB_API bb_status bb_dataset_set_seq_len(bb_dataset *dataset, int seq_len, bb_error *err);
BB_API int bb_dataset_seq_len(const bb_dataset *dataset);

typedef struct bb_dataset_info {
    int64_t shards, bytes;  /* usable ones */
    int64_t skipped_shards; /* shorter than seq_len + 1 */
    const char *warning;    /* NULL, or one line about the skipped ones */
} bb_dataset_info;
BB_API bb_dataset_info bb_dataset_get_info(const bb_dataset *dataset);

/* The next `grad_accum` * `batch_size` * world_size samples of the whole job form a step; this rank's micro-batch
 * `micro` (0 <= micro < grad_accum) of it. x, y: (batch_size, seq_len). The position moves on at bb_dataset_next_step. */
BB_API bb_status bb_dataset_batch(bb_dataset *dataset, int batch_size, int grad_accum, int micro, uint8_t *x, uint8_t *y,
                                  bb_error *err);
BB_API void bb_dataset_next_step(bb_dataset *dataset, int batch_size, int grad_accum);
/* Samples seen by the whole job: the only state. */
BB_API uint64_t bb_dataset_position(const bb_dataset *dataset);
BB_API void bb_dataset_set_position(bb_dataset *dataset, uint64_t samples);
/* Passes over the data that so many samples of seq_len bytes are. */
BB_API double bb_dataset_epochs(const bb_dataset *dataset, int seq_len, double samples);

/* All of a file, a pipe or standard input ("-"), decompressed, UTF-16 turned into UTF-8; what is no text, such as a model, is
 * BB_ERR_FORMAT. *text has a NUL past its size; free it with bb_string_free. stop: NULL, or non-zero ends the wait. */
BB_API bb_status bb_read_text(const char *path, const volatile int *stop, char **text, size_t *size, bb_error *err);

/* What all inputs hold. AUTO: .json, .jsonl and .ndjson are JSON, everything else is text. */
typedef enum bb_input_format { BB_INPUT_AUTO = 0, BB_INPUT_TEXT, BB_INPUT_JSON_LINES, BB_INPUT_JSON } bb_input_format;

typedef struct bb_pack_options {
    const char *const *inputs; /* files and folders; "-" is standard input */
    int input_count;
    const char *out_dir;
    double shard_size_gb;    /* 2 (10^9 bytes) */
    int sep_byte;            /* 0..255 between documents, -1 none */
    const char *const *exts; /* without the dot; used for files found in folders; "all" and "*": every file */
    int ext_count;
    double val_frac;              /* the last part of the bytes, 0 <= val_frac < 1 */
    const char *const *json_keys; /* first found wins */
    int json_key_count;
    bb_input_format input_format;
    bool strict;    /* stop at the first unreadable or malformed input */
    bool overwrite; /* replace the shards of an earlier pack */
    void (*on_progress)(void *user, int64_t files_done, int64_t files_total, int64_t bytes_done);
    void (*on_skip)(void *user, const char *path, const char *reason);
    void (*on_note)(void *user, const char *message); /* once: what folders hold besides, by extension */
    void *user;
    const volatile int *stop; /* non-NULL and non-zero: stop, leaving nothing that looks whole */
} bb_pack_options;

typedef struct bb_pack_result {
    int64_t files, documents; /* that were packed */
    int64_t bytes, val_bytes; /* of all shards; of the val shards among them */
    int64_t shards, val_shards;
    int64_t skipped, left_out; /* files and records that cannot be read; files of folders, for their extension */
} bb_pack_result;

BB_API void bb_pack_options_default(bb_pack_options *options);
BB_API bb_status bb_pack(const bb_pack_options *options, bb_pack_result *result, bb_error *err);

/* ---- Training -------------------------------------------------------------------------------------------------------- */

/* The order in which gradients are added. Either way the same number of ranks gives the same bits.
 * EXACT: by micro-batch, so that 1, 2, 4, … ranks that share the same micro-batches (a multiple of their number) end with the
 * same checkpoint, bit for bit; takes time and memory where a rank has several micro-batches a step. FAST: each rank adds its
 * own in place, then ranks are added. */
typedef enum bb_reduce { BB_REDUCE_FAST = 0, BB_REDUCE_EXACT = 1 } bb_reduce;

typedef enum bb_lr_schedule { BB_LR_COSINE = 0, BB_LR_CONSTANT = 1 } bb_lr_schedule;

/* Linear warm-up to base_lr, then cosine to base_lr * min_factor at total_steps, or constant. */
BB_API double bb_lr_for_step(int64_t step, int64_t warmup_steps, int64_t total_steps, double base_lr, bb_lr_schedule schedule,
                             double min_factor);
/* The curriculum: 2048, 4096, 8192 by the fraction done, never over `cap` (0: no cap). */
BB_API int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap);
BB_API double bb_bits_per_byte(double loss_nats);

typedef struct bb_optimizer bb_optimizer;
typedef struct bb_optimizer_options {
    bb_optimizer_kind kind;
    double lr, weight_decay, beta1, beta2, eps;
    bool decay_all;      /* every parameter, not just the 2-D weights */
    bb_dist *share_over; /* each of its ranks holds a part of the moments (ZeRO stage 1), for a trainer with the same dist,
                            which alone may then call step; the results are the same. NULL: all of them are here. Outlives it.
                            Until train returns, a rank's f32 values of the weights that others update are those of before */
} bb_optimizer_options;

BB_API void bb_optimizer_options_default(bb_optimizer_options *options);
/* For the parameters of `model`, which must outlive it. */
BB_API bb_status bb_optimizer_create(bb_model *model, const bb_optimizer_options *options, bb_optimizer **out, bb_error *err);
BB_API void bb_optimizer_free(bb_optimizer *optimizer);
BB_API bool bb_optimizer_is_8bit(const bb_optimizer *optimizer);
BB_API uint64_t bb_optimizer_state_bytes(const bb_optimizer *optimizer); /* in this process */
/* Divides the gradients by loss_scale (1: they carry none), clips them to global norm max_norm (0: no clip), then one update.
 * A gradient norm that is not finite changes nothing, and *applied is false. */
BB_API bb_status bb_optimizer_step(bb_optimizer *optimizer, double lr, double max_norm, double loss_scale, double *grad_norm,
                                   bool *applied, bb_error *err);

/* Dynamic loss scaling, for gradients kept in fp16: doubles every `growth_interval` good steps, halves at an overflow. */
typedef struct bb_loss_scaler bb_loss_scaler;
BB_API bb_status bb_loss_scaler_create(double initial_scale, int growth_interval, bool enabled, bb_loss_scaler **out,
                                       bb_error *err);
BB_API void bb_loss_scaler_free(bb_loss_scaler *scaler);
BB_API double bb_loss_scaler_scale(const bb_loss_scaler *scaler); /* 1 when not enabled */
BB_API void bb_loss_scaler_update(bb_loss_scaler *scaler, bool found_overflow);

typedef struct bb_trainer bb_trainer;

/* Checkpoints are written while training goes on, from a copy, or from what is trained: without its memory, but an update then
 * waits until all of it is written. Auto: from a copy unless that takes more than an eighth of the host's memory. */
typedef enum bb_save_copy { BB_SAVE_COPY_AUTO = 0, BB_SAVE_COPY_YES, BB_SAVE_COPY_NO } bb_save_copy;

typedef enum bb_train_event_kind {
    BB_TRAIN_STEP = 0,   /* after every step */
    BB_TRAIN_VALIDATION, /* val_bpb was measured */
    BB_TRAIN_SAVED,      /* path holds a whole checkpoint of `step`, which may have been some steps ago */
    BB_TRAIN_NOTICE      /* message: something the user should read (skipped step, short shard, …) */
} bb_train_event_kind;

typedef struct bb_train_event {
    bb_train_event_kind kind;
    int64_t step, total_steps; /* steps done, after this one */
    int seq_len;
    double loss, bpb, lr, grad_norm, val_bpb;
    double bytes_per_second, elapsed_seconds, eta_seconds; /* of this call of train */
    int64_t bytes_seen;                                    /* trained on, whole job, since the first step ever */
    int64_t skipped_steps, skipped_micro_batches;
    bool logged;          /* the step is one of those that go to metrics.jsonl */
    double pause_seconds; /* of BB_TRAIN_SAVED: how long training stood still for it */
    /* Of the time since the last logged step: that ranks waited for others, their mean; and of each step the least, which even
     * the last rank waited, so that it is communication that computing did not hide. */
    double wait_share, exposed_share;
    const char *path, *message;
} bb_train_event;

typedef struct bb_train_options {
    int64_t steps, warmup_steps; /* warmup_steps -1: int(warmup_frac * steps) */
    int64_t stop_at;             /* save and return after this step, the schedule still made for `steps`; 0: off */
    double warmup_frac;
    bb_lr_schedule lr_schedule;
    double lr_min_factor, grad_clip;
    double spike_skip; /* a loss or gradient norm so many standard deviations over the mean of the last 64 applied steps is
                          skipped; 0: off. Ten skipped in a row end the run with BB_ERR_NUMERIC */
    int batch_size, grad_accum; /* of each rank */
    int64_t global_batch;       /* sequences of a step in the whole job, grad_accum unused; 0: by the two above */
    bb_dist *dist;              /* NULL: this process alone. Outlives the trainer */
    bb_reduce reduce;
    int seq_len;                     /* 0: the curriculum */
    int seq_len_cap;                 /* 0: none */
    bool recompute;                  /* keep block inputs alone and recompute the rest in the backward pass */
    int log_every, save_every, keep; /* keep: newest checkpoints kept, 0 all */
    int keep_every;                  /* those of steps that it divides are kept besides; 0: off */
    bool save_sync;                  /* training waits while a checkpoint is written, instead of going on meanwhile */
    bb_save_copy save_copy;
    double save_minutes; /* saves also when so long ago; 0: off */
    double max_minutes;  /* saves and returns before so long after the creation; 0: off */
    const char *out_dir; /* NULL: nothing is written */
    bool allow_overwrite;
    const char *run_config_json;        /* text of config.json to leave in out_dir; NULL: none */
    const char *checkpoint_config_json; /* JSON text that each checkpoint keeps, for bb_checkpoint_config; NULL: none */
    bool require_same_data; /* resumed on other data than the checkpoint names: an error instead of a BB_TRAIN_NOTICE */
    const char *val_data;   /* NULL: no validation */
    int val_every, val_batches;
    int val_seq_len; /* bytes of a window; 0: as long as the sequences that are trained on, at most 2048 */
    bool strict_val; /* a validation that fails ends the run; else it is a notice, and counted */
    void (*on_event)(void *user, const bb_train_event *event);
    void *user;
} bb_train_options;

BB_API void bb_train_options_default(bb_train_options *options);
/* Makes of bb_memory_predict's estimate what this rank takes with these options: adds partial sums of gradients and what
 * exchanges them, and leaves out the moments that other ranks hold. */
BB_API bb_status bb_memory_predict_rank(const bb_config *config, const bb_train_options *options,
                                        const bb_optimizer_options *optimizer, bb_memory_estimate *estimate, bb_error *err);
/* Model, optimizer and scaler (may be NULL) are the caller's and outlive the trainer. Reserves the memory of the whole run.
 * With several ranks every rank has its own of each, and its own data set over the same data, opened as rank 0 of 1: the
 * trainer takes the rank's part of each step. Rank 0 alone writes files and has events. */
BB_API bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler,
                                   const bb_train_options *options, bb_trainer **out, bb_error *err);
BB_API void bb_trainer_free(bb_trainer *trainer);
/* path: a checkpoint, or a run directory: its newest checkpoint that is not damaged; a BB_TRAIN_NOTICE names each that is
 * passed over. Without the optimizer state, training goes on from the same step with fresh moments. Call before train. */
BB_API bb_status bb_trainer_resume(bb_trainer *trainer, const char *path, bool load_opt_state, bb_error *err);
/* Trains until `steps`, `stop_at`, `max_minutes`, or a stop request (then BB_ERR_INTERRUPTED, after saving). A request to one
 * rank stops all. An error first saves the last good step, where neither the disk nor the numbers are what is bad, and its
 * message says which checkpoint is the newest. When it fails on one rank, the others may wait for it: end them with
 * bb_dist_abort. A run resumed at a step whose validation was abandoned, or failed, begins with it. */
BB_API bb_status bb_trainer_train(bb_trainer *trainer, bb_dataset *dataset, bb_error *err);
/* Async-signal-safe, on any rank: finish the step, or abandon the validation, save, return; and: save after this step, go on. */
BB_API void bb_trainer_request_stop(bb_trainer *trainer);
BB_API void bb_trainer_request_save(bb_trainer *trainer);
BB_API int64_t bb_trainer_failed_validations(const bb_trainer *trainer); /* by this trainer, on rank 0 */
BB_API int64_t bb_trainer_step(const bb_trainer *trainer);
/* How a new run draws samples, or the resumed one did. */
BB_API bb_sampling bb_trainer_sampling(const bb_trainer *trainer);
BB_API const char *bb_trainer_resumed_from(const bb_trainer *trainer); /* the checkpoint that resume took, or NULL */
/* The shares of an event, of the whole call of train. 0 for one process. */
BB_API void bb_trainer_wait_shares(const bb_trainer *trainer, double *wait_share, double *exposed_share);
BB_API bool bb_trainer_out_of_time(const bb_trainer *trainer); /* train returned because of max_minutes */
/* The checkpoint_config_json of the run that wrote a checkpoint; bb_string_free. NULL where it has none. */
BB_API bb_status bb_checkpoint_config(const char *path, char **text, bb_error *err);
/* The newest checkpoint of a run directory, by its name; of those before step `before`. */
BB_API bb_status bb_run_latest_checkpoint(const char *run_dir, char *path, size_t path_size, bb_error *err);
BB_API bb_status bb_run_checkpoint_before(const char *run_dir, int64_t before, char *path, size_t path_size, bb_error *err);
/* Gives the checkpoints of a run directory to `take`, from the newest on, until one is not damaged (BB_ERR_IO, BB_ERR_FORMAT,
 * BB_ERR_DATA), and returns what `take` did. on_damaged (may be NULL) is told of each that is. */
BB_API bb_status bb_run_newest_good(const char *run_dir, bb_status (*take)(void *user, const char *path, bb_error *err),
                                    void (*on_damaged)(void *user, const char *path, const char *reason), void *user,
                                    bb_error *err);

/* ---- Evaluation ------------------------------------------------------------------------------------------------------ */

/* How the keys and values of past bytes are held: in 6 or 8 bits, with a scale for each position and head, or in f32. */
typedef enum bb_kv_type { BB_KV_INT6 = 0, BB_KV_INT8, BB_KV_F32 } bb_kv_type;

typedef struct bb_eval_options {
    int seq_len, batch_size;
    bool sliding; /* every byte is seen as bb_generate's window sees it: after at least half of seq_len, at a file's beginning
                     less */
    bool cached;  /* read as bb_generate reads: a few bytes at a time, past ones out of a KV cache; much slower */
    bb_kv_type kv_cache;                                                                         /* then: how it holds them */
    int64_t max_batches;                                                                         /* 0: everything */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total, double bpb_so_far); /* total 0: not known */
    void *user;
    const volatile int *stop;
} bb_eval_options;
typedef struct bb_eval_result {
    double bpb, loss, seconds;
    int64_t bytes, files; /* bytes scored */
    const char *pattern;  /* what was scored of a directory: "val_*.bin", or "shard_*.bin"; NULL: data was none */
} bb_eval_result;
BB_API void bb_eval_options_default(bb_eval_options *options);
/* data: a directory (its val_*.bin, or its shard_*.bin where it has none), a glob, a file, a pipe, or "-" for standard input;
 * texts are read as bb_read_text reads them. Every byte but the first of each file is scored once. */
BB_API bb_status bb_evaluate(bb_model *model, const char *data, const bb_eval_options *options, bb_eval_result *result,
                             bb_error *err);

/* ---- Generation ------------------------------------------------------------------------------------------------------ */

typedef struct bb_bytes {
    const uint8_t *data;
    size_t size;
} bb_bytes;

/* Guessing bytes, from what stood in the text before or by a draft model, and verifying several in one pass: changes the speed,
 * and no byte of what is generated. */
typedef enum bb_speculate {
    BB_SPECULATE_OFF = 0,
    BB_SPECULATE_AUTO,  /* as many at a time as pay, by what guesses and passes have done so far; none where none pays */
    BB_SPECULATE_ALWAYS /* whatever it costs */
} bb_speculate;

typedef struct bb_generate_options {
    int64_t max_new_bytes;
    /* How a byte is drawn from the logits, in this order. */
    double repetition_penalty; /* 1: off; a byte that stands among the last repetition_window ones of the text, prompt included,
                                * has its logit divided by it where that is positive, else multiplied */
    int repetition_window;     /* 1..65536 */
    double temperature;        /* divides the logits; 0: the likeliest byte, and nothing below applies */
    int top_k;                 /* only the k likeliest; 0: off */
    double top_p;              /* of those the fewest likeliest that together reach this share of their probability; 1: off */
    double min_p;              /* of those the ones at least this times as likely as the likeliest; 0: off */
    uint64_t seed;             /* draw i of a text depends on nothing but (seed, i) and the logits */
    /* Ends as soon as what is generated ends with one of these (the longest, if with several). It is neither given to on_byte
     * nor kept in the context; bytes that may be the beginning of one are held back until that is decided. */
    const bb_bytes *stops;
    int stop_count;
    bb_speculate speculate;
    int context_length; /* bb_generate: these three as in bb_session_options */
    bb_kv_type kv_cache;
    bb_model *draft;
    /* Called with each new byte; returning false ends the generation after it. */
    bool (*on_byte)(void *user, uint8_t byte);
    void *user;
} bb_generate_options;
typedef struct bb_generate_metrics {
    int64_t prompt_bytes, new_bytes; /* drawn, those of a stop text among them */
    int64_t context_restarts;        /* how often the window was full */
    int stop;                        /* the stop text that ended it; -1: none */
    int64_t passes, drafted,
        accepted; /* through the model after the prompt; bytes guessed and verified; those that were right */
    double prompt_seconds, decode_seconds, first_byte_seconds;
    double mean_logprob; /* nats, of the bytes generated, under the unmodified distribution */
} bb_generate_metrics;
BB_API void bb_generate_options_default(bb_generate_options *options);

/* A text that goes on: bytes that were fed and bytes that were generated, with the KV cache of the newest of them. Past the
 * window its older half is dropped and the newer half read again from position 0, so that memory stays constant and positions
 * stay in the trained range. Of a longer piece of text than the window has room for, the last bytes are read: up to three
 * quarters of a window. A model may have several sessions; no two calls on them at the same time. */
typedef struct bb_session bb_session;
typedef struct bb_session_options {
    int context_length; /* bytes that the model sees at once, the window; 0: its trained length */
    bb_kv_type kv_cache;
    /* NULL, or a smaller model of the same kind of text, on any device: with `speculate` it guesses what this one will draw,
     * with the same random numbers, so that sampled bytes are guessed as well as the two distributions agree. It must outlive
     * the session, and is in use whenever the session is. */
    bb_model *draft;
    /* NULL, or called now and then while many bytes are read; returning false ends that: BB_ERR_INTERRUPTED, and the text is
     * what was read until then. */
    bool (*on_read)(void *user, int64_t done, int64_t total);
    void *user;
} bb_session_options;
BB_API void bb_session_options_default(bb_session_options *options);
BB_API bb_status bb_session_open(bb_model *model, const bb_session_options *options, bb_session **out, bb_error *err);
BB_API void bb_session_close(bb_session *session);
/* Appends bytes and reads them. Zero bytes are none. */
BB_API bb_status bb_session_feed(bb_session *session, const uint8_t *bytes, size_t count, bb_error *err);
/* Goes on from the text, which grows by what on_byte was given; an empty text begins after a newline. metrics (may be NULL):
 * prompt_* are of what was fed since the session was opened or last generated. */
BB_API bb_status bb_session_generate(bb_session *session, const bb_generate_options *options, bb_generate_metrics *metrics,
                                     bb_error *err);
/* Bytes of text, forgotten ones included. */
BB_API int64_t bb_session_length(const bb_session *session);
/* Remembers the present end of the text, in place of an earlier mark; rewind forgets all that came after it, as often as one
 * likes: what is then generated with the same options is the same. It is as good as free while the window has not slid since
 * the mark, else the marked window is read again. */
BB_API bb_status bb_session_mark(bb_session *session, bb_error *err);
BB_API bb_status bb_session_rewind(bb_session *session, bb_error *err);
/* An empty text again, and no mark. */
BB_API void bb_session_clear(bb_session *session);

/* One session for one text: opens, feeds the prompt (length may be 0), generates, closes. */
BB_API bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *options,
                             bb_generate_metrics *metrics, bb_error *err);

/* ---- Information ----------------------------------------------------------------------------------------------------- */

/* What a model or checkpoint file is, as JSON text (free it with bb_string_free): configuration, parameters, training
 * state, and per ternary tensor its scale and the shares of -1, 0 and +1. */
BB_API bb_status bb_describe_file(const char *path, char **json, bb_error *err);
/* Reads all of a model or checkpoint file and compares it with its checksums (docs/FORMAT.md), its values with what a model may
 * hold. As JSON text: `good`, and `failures`, each with its `tensor` and `reason`. BB_OK however bad the content is. */
BB_API bb_status bb_verify_file(const char *path, void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total),
                                void *user, bool *good, char **json, bb_error *err);
BB_API void bb_string_free(char *text);
/* A path as UTF-8, for JSON, and back. One that is not UTF-8, or holds the characters \x, has its bytes above 0x7f and its
 * backslashes written as \xHH. Free both with bb_string_free; NULL: no memory. */
BB_API char *bb_path_text(const char *path);
BB_API char *bb_path_from_text(const char *text);

/* A device that computes on `device` and times each operation of the models made on it; results are the same. `device` must outlive
 * it, is not closed with it, and has no other use meanwhile. Measures the peaks first: about a second, and half a gigabyte. */
BB_API bb_status bb_profile_open(bb_device *device, bb_device **out, bb_error *err);
BB_API bb_status bb_profile_start(bb_device *profiled, bb_error *err); /* forgets what was timed before */
/* As JSON text (free it with bb_string_free): `operations`, the longest first, with calls, ms, percent of the time since the start,
 * and percent of peak where their work can be counted from their arguments; `shares`. */
BB_API bb_status bb_profile_report(const bb_device *profiled, const bb_config *config, char **json, bb_error *err);

typedef struct bb_bench_options {
    const char *shape;       /* "S", "M" or "L" */
    int batch_size, seq_len; /* 0: the shape's own, and 512 */
    int repeats;
    bb_optimizer_kind optim;
    bool recompute; /* as training does by default; the limit then counts what is computed twice */
    bool step_only; /* leaves the single operations out */
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_bench_options;
BB_API void bb_bench_options_default(bb_bench_options *options);
/* Timings of training steps at a model shape and of their operations, as JSON text: bytes/s, percent of the measured peaks. */
BB_API bb_status bb_bench(bb_device *device, const bb_bench_options *options, char **json, bb_error *err);

typedef struct bb_decode_bench_options {
    const char *shape; /* "S", "M" or "L" */
    int repeats;
    bb_kv_type kv_cache;
    void (*on_progress)(void *user, const char *line);
    void *user;
} bb_decode_bench_options;
BB_API void bb_decode_bench_options_default(bb_decode_bench_options *options);
/* Timings of inference at a model shape with random weights, as JSON text: bytes/s from an empty context and at positions 1,024
 * and 4,096, of reading 512 bytes, loading a packed file that is not in memory, and resident memory; percent of the peaks
 * measured in the same call. Writes the model to TMPDIR for a moment. */
BB_API bb_status bb_bench_decode(bb_device *device, const bb_decode_bench_options *options, char **json, bb_error *err);

#ifdef __cplusplus
}
#endif
#endif
