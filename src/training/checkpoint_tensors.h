// SPDX-License-Identifier: MIT
/* Lists the tensors of a checkpoint and where their bytes are in memory: one list for writing and for reading. */
#ifndef BB_TRAINING_CHECKPOINT_TENSORS_H
#define BB_TRAINING_CHECKPOINT_TENSORS_H

#include "model/model.h"
#include "modelfile/tensor_source.h"
#include "training/optim.h"

/* Which values of a parameter a tensor of the file holds. */
typedef enum bb_checkpoint_field {
    BB_FIELD_VALUES,
    BB_FIELD_M,
    BB_FIELD_V,
    BB_FIELD_M8,
    BB_FIELD_V8,
    BB_FIELD_M8_ABSMAX,
    BB_FIELD_V8_ABSMAX,
    BB_FIELD_MOMENTUM,
    BB_FIELD_ROW_SUMS
} bb_checkpoint_field;

enum { BB_CHECKPOINT_NAME_BYTES = 64 };

typedef struct bb_checkpoint_tensor {
    char name[BB_CHECKPOINT_NAME_BYTES];
    bb_file_tensor tensor; /* without a name */
    int param;             /* index in the parameter table */
    bb_checkpoint_field field;
} bb_checkpoint_tensor;

/* Lists all parameters, then the moments of each. optimizer NULL: only the parameters. source: the file to read, which may be
 * of an older version; NULL for writing. The caller frees *out. */
bb_status bb_checkpoint_tensors_list(const bb_model *model, const bb_optimizer *optimizer, const bb_tensor_source *source,
                                     bb_checkpoint_tensor **out, int *count, bb_error *err);

/* Where the parameters and the optimizer's state are stored: the live arrays on the device, or a copy of them. */
typedef struct bb_checkpoint_memory {
    const bb_param_table *table;
    float *params;
    const bb_shards *shards;        /* the optimizer's; NULL: no optimizer */
    const bb_optimizer_slot *slots; /* one per piece */
} bb_checkpoint_memory;

/* Returns the live arrays. */
bb_checkpoint_memory bb_checkpoint_memory_of(const bb_model *model, const bb_optimizer *optimizer);

/* A contiguous part of a tensor: a parameter's values are one part, its moments one part per piece of bb_shards. */
typedef struct bb_checkpoint_part {
    void *data; /* NULL: on another rank */
    size_t bytes;
    int rank; /* the rank that holds it, when data is NULL */
} bb_checkpoint_part;

/* A range of bytes of a tensor, starting at byte `at`. */
typedef struct bb_checkpoint_bytes {
    uint64_t at;
    const uint8_t *data;
    size_t size;
} bb_checkpoint_bytes;
/* Copies bytes of a tensor in the file to the parts of it that this rank holds. */
bb_status bb_checkpoint_copy_in(bb_device *device, const bb_checkpoint_memory *to, const bb_checkpoint_tensor *tensor,
                                const bb_checkpoint_bytes *bytes, bb_error *err);

int bb_checkpoint_part_count(const bb_checkpoint_memory *memory, const bb_checkpoint_tensor *tensor);
bb_checkpoint_part bb_checkpoint_part_at(const bb_checkpoint_memory *memory, const bb_checkpoint_tensor *tensor, int index);

#endif
