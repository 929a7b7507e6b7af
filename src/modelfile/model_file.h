// SPDX-License-Identifier: MIT
/* Model files as inference reads and writes them: f32 masters, which become ternary on the way in, or ternary weights at two
 * bits. docs/FORMAT.md is normative. */
#ifndef BB_MODELFILE_MODEL_FILE_H
#define BB_MODELFILE_MODEL_FILE_H

#include "model/params.h"
#include "modelfile/tensor_source.h"

#define BB_MODEL_FILE_FORMAT "bitbyte"       /* __metadata__.format: ternary tensors are f32 masters */
#define BB_PACKED_FILE_FORMAT "bitbyte-2bit" /* ternary tensors are codes, each with a scale */
#define BB_SCALE_SUFFIX "_scale"             /* of the name of a packed tensor's scale */

bb_status bb_model_file_config(const bb_tensor_source *st, bb_config *out, bb_error *err);
/* The longest sequence trained on, or the default where the file does not say. */
int bb_model_file_trained_length(const bb_tensor_source *st);
/* Whether its ternary tensors are codes, which can't be trained. */
bool bb_model_file_is_packed(const bb_tensor_source *st);
/* The codes of ternary parameter p (U8, (N, ceil(K/4))) and its scale, checked but for the codes' values. */
bb_status bb_model_file_packed_tensor(const bb_tensor_source *st, const bb_param *p, const bb_file_tensor **codes, float *scale,
                                      bb_error *err);
/* To be called by bb_tensor_source_scan, `user` the path: the values of a tensor of F32 are finite. */
bb_status bb_model_file_check_finite(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                     bb_error *err);
/* A piece of such codes, from byte `at` of the tensor: none is 3. */
bb_status bb_model_file_check_codes(const char *path, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                    bb_error *err);

/* BB_ERR_ARGUMENT where the weights are packed, and so can't be trained. */
bb_status bb_model_file_refuse_packed(const bb_tensor_source *st, bb_error *err);

/* Checks metadata that a higher room wrote, e.g. the training state. */
typedef bb_status (*bb_metadata_check)(const bb_tensor_source *st, bb_error *err);
typedef struct bb_verify_progress {
    void (*call)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
} bb_verify_progress;
/* bb_verify_file, where the state in the metadata is check_state's business. */
bb_status bb_model_file_verify(const char *path, bb_metadata_check check_state, const bb_verify_progress *progress, bool *good,
                               char **json, bb_error *err);

#endif
