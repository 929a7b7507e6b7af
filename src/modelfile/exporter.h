// SPDX-License-Identifier: MIT
/* Exports a model to another format. Each format is one file that defines a bb_export_format, declared in export_formats.h and
 * listed in export.c. */
#ifndef BB_MODELFILE_EXPORTER_H
#define BB_MODELFILE_EXPORTER_H

#include "model/model.h"
#include "modelfile/model_source.h"

/* An export in progress, as a format's writer sees it. */
typedef struct bb_exporter {
    bb_model_source source;
    bb_param_table table; /* parameters of the source's configuration */
    bb_model *model;      /* loaded for inference; NULL if the format takes masters */
    const char *path;     /* output path */
    const bb_export_options *options;
    const char *chat_template; /* validated; NULL: none */
    const char *type; /* one of the format's types; a writer may replace the default, which is used if the options name none */
    int64_t bytes_done, bytes_total; /* of f32 values, for progress */
    bb_latent_weights latent;        /* masters found in a file that should have held values g q */
} bb_exporter;

typedef struct bb_export_format {
    const char *name;         /* "gguf" */
    const char *const *types; /* default first, NULL-terminated; NULL: the format has no types */
    bool masters;             /* the format stores f32 masters; else ternary weights as layers use them */
    bool describes;           /* it can hold a name, a description and a license */
    bool ngrams;              /* it can hold n-gram embeddings */
    bb_status (*write)(bb_exporter *e, bb_error *err);
} bb_export_format;

/* For writers. Each parameter counts once towards progress, whichever function reads it. */
/* Visits the f32 values of a parameter, row-major, in pieces; masters if it is ternary. For formats that take masters. */
bb_status bb_exporter_scan(bb_exporter *e, const bb_param *p, bb_values_visit visit, void *user, bb_error *err);
/* Reads the f32 values of a non-ternary parameter. out: (p->count). */
bb_status bb_exporter_read(bb_exporter *e, const bb_param *p, float *out, bb_error *err);
/* Reads a ternary parameter: q in {-1, 0, 1} (N,K) and the scale; a layer uses scale * q. Not for formats that take masters. */
bb_status bb_exporter_ternary(bb_exporter *e, const bb_param *p, int8_t *q, float *scale, bb_error *err);

#endif
