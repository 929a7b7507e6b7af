// SPDX-License-Identifier: MIT
/* Verifies whole model files. */
#ifndef BB_MODELFILE_MODEL_FILE_H
#define BB_MODELFILE_MODEL_FILE_H

#include "modelfile/tensor_source.h"

/* Checks metadata that a higher layer wrote, e.g. the training state. */
typedef bb_status (*bb_metadata_check)(const bb_tensor_source *st, bb_error *err);
typedef struct bb_verify_request {
    const bb_import_options *options; /* may be NULL */
    bb_metadata_check check_state;
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
} bb_verify_request;
/* Implements bb_verify_file; check_state checks the training state in the metadata. */
bb_status bb_model_file_verify(const char *path, const bb_verify_request *request, bool *good, char **json, bb_error *err);

#endif
