// SPDX-License-Identifier: MIT
/* Models: configuration, files, weights, passes; the quantizers and the BitLinear layer. */
#ifndef BITBYTE_MODEL_H
#define BITBYTE_MODEL_H

#include "base.h"

/* ---- Configuration ------------------------------------------------------------------------------------------------------- */

typedef enum bb_ste { BB_STE_IDENTITY = 0, BB_STE_CLIPPED = 1 } bb_ste; /* straight-through estimator of the weight gradient */

typedef struct bb_config {
    int vocab_size; /* 256: raw bytes */
    int n_layer, d_model, n_head, n_kv_head, d_ff;
    double rope_base, norm_eps;
    bool act_quant; /* int8 inputs with one scale per token in every BitLinear */
    bb_ste ste;
    /* n-gram embeddings: for each n from 2 to ngram_max, a table of 2^ngram_bits rows, selected by a hash of the last n bytes;
     * the rows are added to the byte's embedding. 0: none. Other programs cannot read models with them. */
    int ngram_max, ngram_bits;
    /* The dense twin, for comparison: linear layers multiply f32 weights by f32 inputs. Requires act_quant false and ste identity. */
    bool dense;
} bb_config;

BB_API void bb_config_default(bb_config *config); /* n_layer 24, d_model 1536, n_head 12, d_ff 4096 */
BB_API bb_status bb_config_check(const bb_config *config, bb_error *err);
BB_API uint64_t bb_config_parameters(const bb_config *config);

/* ---- Models -------------------------------------------------------------------------------------------------------------- */

typedef struct bb_model bb_model;

/* Creates a model with randomly initialized weights. */
BB_API bb_status bb_model_create(bb_device *device, const bb_config *config, uint64_t seed, bb_model **out, bb_error *err);
BB_API void bb_model_free(bb_model *model);
BB_API const bb_config *bb_model_config(const bb_model *model);
BB_API uint64_t bb_model_parameters(const bb_model *model);
/* Returns the longest sequence that the model was trained on, in bytes; 2048 if the file does not say. */
BB_API int bb_model_trained_length(const bb_model *model);

/* A chat template is the text of one message of a chat: UTF-8 of at most BB_MAX_CHAT_TEMPLATE bytes, with {role}, then
 * {content} exactly once, and some text after that: "{role}: {content}\n". The prompt consists of all messages in this form,
 * then the text before {content} for the role "assistant"; an answer ends where the text after {content} begins the next
 * message. Model files hold at most one. */
enum { BB_MAX_CHAT_TEMPLATE = 2048 };
BB_API bb_status bb_chat_template_check(const char *chat_template, bb_error *err);
/* NULL: none. Returned as stored in the model's file: check it before use. Valid until it is set, or the model is freed. */
BB_API const char *bb_model_chat_template(const bb_model *model);
/* NULL: removes it. */
BB_API bb_status bb_model_set_chat_template(bb_model *model, const char *chat_template, bb_error *err);

/* ---- Model files --------------------------------------------------------------------------------------------------------- */

/* Options for reading a model file. */
typedef struct bb_import_options {
    size_t struct_size;
    int n_head;         /* attention heads, for files that do not store them; 0: stored in the file */
    bool for_inference; /* bb_model_import: load like bb_model_load_for_inference */
    void (*on_notice)(void *user, const char *text); /* may be NULL; reports what was assumed or changed while reading */
    void *user;
} bb_import_options;
BB_OPTIONS(bb_import_options);
/* Returns whether `path` is a Hugging Face folder, which functions that read model files accept: it has a config.json that is
 * not a run's. */
BB_API bool bb_is_hf_folder(const char *path);
/* Reads only the configuration of a model file. options and trained_length (see bb_model_trained_length) may be NULL. */
BB_API bb_status bb_config_load(const char *path, const bb_import_options *options, bb_config *out, int *trained_length,
                                bb_error *err);

/* path: a model file, a checkpoint, or another readable format. Values must be finite. */
BB_API bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err);
/* Loads a model for inference only, also from packed files. Ternary weights take at most two bits each; logits are the same. */
BB_API bb_status bb_model_load_for_inference(bb_device *device, const char *path, bb_model **out, bb_error *err);
/* Like one of these two, with options. */
BB_API bb_status bb_model_import(bb_device *device, const char *path, const bb_import_options *options, bb_model **out,
                                 bb_error *err);
BB_API bb_status bb_model_save(const bb_model *model, const char *path, bb_error *err);
/* Saves a model loaded for inference as a packed file, about 1/16 of the size. path must not be the file it was loaded from. */
BB_API bb_status bb_model_export_packed(const bb_model *model, const char *path, bb_error *err);

typedef struct bb_export_options {
    size_t struct_size;
    const char *format;                       /* see bb_export_format_name; NULL: bb_export_format_for(out), else "packed" */
    const char *type;                         /* weight type, for formats with several; NULL: the format's default */
    const char *name, *description, *license; /* UTF-8, for formats that store them (gguf, hf); NULL: omitted */
    int n_head;                               /* only for model files that do not store it; 0: stored in the file */
    void (*on_notice)(void *user, const char *text);                          /* see bb_import_options; may be NULL */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop;  /* may be NULL; nonzero: stop and leave no file */
    const char *chat_template; /* see bb_chat_template_check; NULL: the model's, which must be valid; "": none */
} bb_export_options;
BB_OPTIONS(bb_export_options);
/* Returns the name of export format `index`, or NULL past the last. */
BB_API const char *bb_export_format_name(int index);
/* Returns the format that a name implies: "gguf" for *.gguf, "hf" for a folder or a name that ends in "/"; NULL: none. */
BB_API const char *bb_export_format_for(const char *out);
/* Converts model file `model` to `out`. On failure nothing is left behind. `out` must not be `model` or a file of it; "hf"
 * writes a folder, which must be new or empty. The device quantizes the weights. */
BB_API bb_status bb_export(bb_device *device, const char *model, const char *out, const bb_export_options *options,
                           bb_error *err);
/* Fails with BB_ERR_ARGUMENT if writing `path` would replace a training checkpoint, or the config.json, latest or best of a
 * run. */
BB_API bb_status bb_output_check(const char *path, bb_error *err);
/* Describes a model file as JSON: configuration, parameters, training state, and for each ternary tensor its scale and shares
 * of -1, 0 and +1. Free it with bb_string_free. options may be NULL. */
BB_API bb_status bb_describe_file(const char *path, const bb_import_options *options, char **json, bb_error *err);
/* Verifies the checksums (docs/FORMAT.md) and values of a model file. JSON: `good`, and `failures` with `tensor` and `reason`;
 * free it with bb_string_free. Returns BB_OK even if the content is damaged. options may be NULL. */
BB_API bb_status bb_verify_file(const char *path, const bb_import_options *options,
                                void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total), void *user,
                                bool *good, char **json, bb_error *err);

/* ---- Weights ------------------------------------------------------------------------------------------------------------- */

typedef struct bb_tensor_info {
    const char *name; /* e.g. "blocks.0.attn.q_proj.weight"; valid as long as the model */
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

/* ---- Passes -------------------------------------------------------------------------------------------------------------- */

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

/* ---- Quantization and the BitLinear layer -------------------------------------------------------------------------------- */

/* w: (rows, cols), finite -> q in {-1,0,1} with one scale: w ~ scale * q. */
BB_API bb_status bb_ternary_quantize(bb_device *device, const float *w, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                     bb_error *err);
/* x: (rows, cols), finite -> q in [-127,127] with one scale per row: x[t] ~ scale[t] * q[t]. */
BB_API bb_status bb_act_quantize(bb_device *device, const float *x, int64_t rows, int64_t cols, int8_t *q, float *scale,
                                 bb_error *err);

typedef struct bb_bitlinear bb_bitlinear;

typedef struct bb_bitlinear_options {
    size_t struct_size;
    int in_features, out_features;
    bool act_quant;
    bb_ste ste;
    uint64_t seed; /* for the initial weight */
} bb_bitlinear_options;
BB_OPTIONS(bb_bitlinear_options); /* act_quant; the features are to be set */

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

#endif
