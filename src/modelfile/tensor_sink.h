// SPDX-License-Identifier: MIT
/* A file of named tensors being written, in any format. The format's create function takes the list of tensors; their data
 * follow in the order of the list. The file appears complete or not at all. */
#ifndef BB_MODELFILE_TENSOR_SINK_H
#define BB_MODELFILE_TENSOR_SINK_H

#include "core/status.h"

typedef struct bb_tensor_sink bb_tensor_sink;

typedef struct bb_tensor_sink_ops {
    bb_status (*write)(bb_tensor_sink *s, const void *data, size_t bytes, bb_error *err);
    bb_status (*commit)(bb_tensor_sink *s, bb_error *err); /* does not free the sink */
    void (*close)(bb_tensor_sink *s);                      /* frees the sink and removes an uncommitted file */
} bb_tensor_sink_ops;

/* Each format's struct begins with this. */
struct bb_tensor_sink {
    const bb_tensor_sink_ops *ops;
};

/* Writes the next bytes of the tensors, in pieces of any size. */
static inline bb_status bb_tensor_sink_write(bb_tensor_sink *s, const void *data, size_t bytes, bb_error *err) {
    return s->ops->write(s, data, bytes, err);
}
/* Discards the file. NULL is ignored. */
static inline void bb_tensor_sink_abort(bb_tensor_sink *s) {
    if (s) s->ops->close(s);
}
/* Frees the sink in any case; on failure there is no new file at its path. */
static inline bb_status bb_tensor_sink_commit(bb_tensor_sink *s, bb_error *err) {
    bb_status status = s->ops->commit(s, err);
    bb_tensor_sink_abort(s);
    return status;
}

#endif
