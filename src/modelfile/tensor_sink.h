// SPDX-License-Identifier: MIT
/* A file of named tensors that is being written, whatever its format. The list of tensors is given when a format's create
 * function makes the sink; their data follow in the order of the list. A file is there whole or not at all. */
#ifndef BB_MODELFILE_TENSOR_SINK_H
#define BB_MODELFILE_TENSOR_SINK_H

#include "core/status.h"

typedef struct bb_tensor_sink bb_tensor_sink;

typedef struct bb_tensor_sink_ops {
    bb_status (*write)(bb_tensor_sink *s, const void *data, size_t bytes, bb_error *err);
    bb_status (*commit)(bb_tensor_sink *s, bb_error *err); /* does not free */
    void (*close)(bb_tensor_sink *s);                      /* frees; removes what was not committed */
} bb_tensor_sink_ops;

/* A format's own struct begins with this. */
struct bb_tensor_sink {
    const bb_tensor_sink_ops *ops;
};

/* The next bytes of the tensors, in pieces of any size. */
static inline bb_status bb_tensor_sink_write(bb_tensor_sink *s, const void *data, size_t bytes, bb_error *err) {
    return s->ops->write(s, data, bytes, err);
}
/* Drops what was written. NULL: nothing to do. */
static inline void bb_tensor_sink_abort(bb_tensor_sink *s) {
    if (s) s->ops->close(s);
}
/* Frees the sink, whatever the result; on failure nothing new is at its path. */
static inline bb_status bb_tensor_sink_commit(bb_tensor_sink *s, bb_error *err) {
    bb_status status = s->ops->commit(s, err);
    bb_tensor_sink_abort(s);
    return status;
}

#endif
