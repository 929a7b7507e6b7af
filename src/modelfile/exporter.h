// SPDX-License-Identifier: MIT
/* Writing a model into another format. A format is one file that defines a bb_export_format and stands in export_formats.h and export.c's table. */
#ifndef BB_MODELFILE_EXPORTER_H
#define BB_MODELFILE_EXPORTER_H

#include "model/model.h"
#include "modelfile/model_source.h"

/* What is exported, as a format's writer sees it. */
typedef struct bb_exporter {
    bb_model_source source;
    bb_param_table table; /* of its configuration */
    bb_model *model;      /* loaded for inference; NULL where the format takes masters */
    const char *path;     /* to be written */
    const bb_export_options *options;
    const char *chat_template; /* good; NULL: none */
    const char *type;          /* one of the types; a writer may replace the default, which stands here if options name none */
    int64_t bytes_done, bytes_total; /* of f32 values, for progress */
    bb_latent_weights latent;        /* masters that were no g q in a file that should have those */
} bb_exporter;

typedef struct bb_export_format {
    const char *name;         /* "gguf" */
    const char *const *types; /* the default first, NULL at the end; NULL: the format has no types */
    bool masters;             /* it stores f32 masters; else ternary weights as layers use them */
    bool describes;           /* it holds a name, a description and a license */
    bool ngrams;              /* it holds n-gram embeddings */
    bb_status (*write)(bb_exporter *e, bb_error *err);
} bb_export_format;

/* For writers; each counts as progress once for each parameter. */
/* f32 values of a parameter: masters of a ternary one, row-major, in pieces. For formats that take masters. */
bb_status bb_exporter_scan(bb_exporter *e, const bb_param *p, bb_values_visit visit, void *user, bb_error *err);
/* f32 values of one that is not ternary, into out (p->count). */
bb_status bb_exporter_read(bb_exporter *e, const bb_param *p, float *out, bb_error *err);
/* q in {-1, 0, 1} (N,K) and the scale of a ternary one: a layer uses scale * q. Not for formats that take masters. */
bb_status bb_exporter_ternary(bb_exporter *e, const bb_param *p, int8_t *q, float *scale, bb_error *err);

#endif
