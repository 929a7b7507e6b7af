// SPDX-License-Identifier: MIT
/* A model in a file of any format: its configuration, and each parameter under SPEC's name. A layout defines how the tensors of
 * a file make up the parameters: names, parts to join, row order, types. docs/FORMAT.md, docs/INTEROP.md. */
#ifndef BB_MODELFILE_MODEL_SOURCE_H
#define BB_MODELFILE_MODEL_SOURCE_H

#include "model/params.h"
#include "modelfile/tensor_source.h"

/* What makes up one parameter (N,K): the rows of one or two tensors, stacked. */
typedef struct bb_weight {
    const bb_file_tensor *parts[2];
    int part_count;
    int interleaved_heads; /* heads whose rotary pairs are adjacent rows (2i, 2i+1), not D/2 apart; 0: as in SPEC */
    bool packed;           /* the part holds codes, U8 (N, ceil(K/4)), with this scale: */
    float scale;
    const bb_file_tensor *row_scales; /* BF16 (N): the part is I8 (N,K) with one scale a row; NULL: it is not */
} bb_weight;

typedef struct bb_model_source bb_model_source;

typedef struct bb_model_layout {
    const char *name; /* "bitbyte" */
    /* The file holds ternary weights as the values g q that a layer uses, not as masters. */
    bool quantized;
    bool packed;                    /* 2-bit weights, not trainable */
    const char *trained_length_key; /* metadata key; NULL: "trained_length" */
    const char *chat_template_key;  /* metadata key; NULL: "chat_template" */
    bool (*matches)(const bb_tensor_source *s);
    bb_status (*read_config)(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err);
    /* Checks type and shape. */
    bb_status (*find)(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err);
} bb_model_layout;

struct bb_model_source {
    bb_tensor_source *source;
    const bb_model_layout *layout;
    bb_config config;
    int trained_length;        /* longest sequence trained on, or the default if the file does not say */
    const char *chat_template; /* as stored in the file, not validated; NULL: none. Owned by the source */
};

/* Opens the file and reads the configuration. options may be NULL. */
bb_status bb_model_source_open(const char *path, const bb_import_options *options, bb_model_source *out, bb_error *err);
/* The same for an open source, which the caller still closes. */
bb_status bb_model_source_from(bb_tensor_source *source, const bb_import_options *options, bb_model_source *out, bb_error *err);
void bb_model_source_close(bb_model_source *w);

/* Receives elements first .. first+n-1 of a parameter, row-major. */
typedef bb_status (*bb_values_visit)(void *user, int64_t first, const float *values, int64_t n, bb_error *err);

/* Visits all values of a weight in order. A value that is not finite, an invalid code or a wrong checksum is BB_ERR_FORMAT. */
bb_status bb_model_source_scan(const bb_model_source *w, const bb_param *p, const bb_weight *weight, bb_values_visit visit,
                               void *user, bb_error *err);

/* The common magnitude of a weight's values: all are -g, 0 or g if the file stores the weight as a layer uses it. */
typedef struct bb_magnitudes {
    float g;         /* magnitude of the first nonzero value */
    int64_t nonzero; /* nonzero values counted, up to about the first that breaks the pattern */
    bool ternary;    /* all values are -g, 0 or g */
    int64_t other;   /* if not ternary: the first offending element, and its value */
    float other_value;
} bb_magnitudes;
void bb_magnitudes_begin(bb_magnitudes *m);
void bb_magnitudes_add(bb_magnitudes *m, int64_t first, const float *values, int64_t n); /* adds the next elements */
/* Scans all values of a weight. */
bb_status bb_model_source_magnitudes(const bb_model_source *w, const bb_param *p, const bb_weight *weight, bb_magnitudes *out,
                                     bb_error *err);

/* Returns the factor that turns values g q of a ternary weight into masters with scale g and codes q: the mean of |g q| is g
 * times the share of nonzero values. Returns 1 if the values are not of that form. */
float bb_magnitudes_master_factor(const bb_magnitudes *m, int64_t count);

/* Weights that should have been g q but are not. They are taken as masters, and the caller is told once. */
typedef struct bb_latent_weights {
    int count;
    const bb_param *first;
    bb_magnitudes magnitudes; /* of the first */
} bb_latent_weights;
void bb_latent_weights_add(bb_latent_weights *l, const bb_param *p, const bb_magnitudes *m);
void bb_latent_weights_notify(const bb_latent_weights *l, const bb_model_source *w,
                              void (*on_notice)(void *user, const char *text), void *user);
/* Returns the error for such weights where values g q are required. */
bb_status bb_latent_weights_refuse(const bb_model_source *w, const bb_param *p, const bb_magnitudes *m, bb_error *err);

/* Loads a model from an open source. Only for_inference and on_notice of the options are used; the others were for opening
 * it. */
bb_status bb_model_load_source(bb_device *device, const bb_model_source *source, const bb_import_options *options,
                               bb_model **out, bb_error *err);

/* Fails with BB_ERR_ARGUMENT if the weights are packed, and so cannot be trained. */
bb_status bb_model_source_refuse_packed(const bb_model_source *w, bb_error *err);

#endif
