// SPDX-License-Identifier: MIT
/* Model files as inference reads and writes them: f32 masters, which become ternary on the way in, or ternary weights at two
 * bits. docs/FORMAT.md is normative. */
#ifndef BB_MODELFILE_MODEL_FILE_H
#define BB_MODELFILE_MODEL_FILE_H

#include "format/safetensors.h"
#include "model/params.h"

#define BB_MODEL_FILE_FORMAT "bitbyte"       /* __metadata__.format: ternary tensors are f32 masters */
#define BB_PACKED_FILE_FORMAT "bitbyte-2bit" /* ternary tensors are codes, each with a scale */
#define BB_SCALE_SUFFIX "_scale"             /* of the name of a packed tensor's scale */

bb_status bb_model_file_config(const bb_safetensors *st, bb_config *out, bb_error *err);
/* The longest sequence trained on, or the default where the file does not say. */
int bb_model_file_trained_length(const bb_safetensors *st);
/* Whether its ternary tensors are codes, which can't be trained. */
bool bb_model_file_is_packed(const bb_safetensors *st);
/* The codes of ternary parameter p (U8, (N, ceil(K/4))) and its scale, checked but for the codes' values. */
bb_status bb_model_file_packed_tensor(const bb_safetensors *st, const bb_param *p, const bb_st_tensor **codes, float *scale,
                                      bb_error *err);
/* To be called by bb_safetensors_scan, `user` the path: the values of a tensor of F32 are finite. */
bb_status bb_model_file_check_finite(void *user, const bb_st_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                     bb_error *err);
/* A piece of such codes, from byte `at` of the tensor: none is 3. */
bb_status bb_model_file_check_codes(const char *path, const bb_st_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                    bb_error *err);

#endif
