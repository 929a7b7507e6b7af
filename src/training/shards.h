// SPDX-License-Identifier: MIT
/* How ranks share the parameters: the ranges that are exchanged at a time, and each rank's part of them. They depend only on
 * shapes and the number of ranks. Parts begin at multiples of 4,096 elements of a tensor, so they divide neither a block of
 * 8-bit moments nor a tile of the gradient norm or of a scale, which are summed over tiles in the parameters' order, whichever
 * rank computed them. So no result depends on whether, or over how many ranks, the optimizer's state is shared. */
#ifndef BB_TRAINING_SHARDS_H
#define BB_TRAINING_SHARDS_H

#include <stdbool.h>

#include "model/params.h"

/* A range of the parameters (and gradients) that is exchanged at once, divided among the ranks at `cut`. */
typedef struct bb_bucket {
    int64_t begin, count;
    int64_t *cut; /* (size + 1), cut[0] is begin */
} bb_bucket;

/* A part of one tensor that one rank updates. It begins at a multiple of BB_SHARD_UNIT from the tensor's beginning; for a
 * ternary tensor, if whole_rows is set, also at a multiple of BB_TERNARY_ROWS rows. */
typedef struct bb_piece {
    int param, rank; /* param: index in the table */
    int64_t first, count;
} bb_piece;

/* A multiple of the blocks of 8-bit moments and of the tiles of the norm, so that none of them is divided. */
enum { BB_SHARD_UNIT = 4096 };
/* Up to this many ranks, parts of ternary tensors are whole rows of codes, so that a rank can quantize its own. With more
 * ranks, such coarse parts would be uneven: a bucket has only a few dozen. */
enum { BB_SHARD_WHOLE_ROWS = 16 };

typedef struct bb_shards {
    bb_bucket *buckets; /* from the last parameters to the first; none for a single rank */
    int bucket_count;
    bb_piece *pieces; /* of all ranks, in the order of the parameters; for a single rank, one per tensor */
    int piece_count;
    int *first_piece; /* (table.count + 1): first piece of each tensor */
    int64_t *cuts;    /* memory of the buckets' cuts */
    bool whole_rows, whole_matrices;
} bb_shards;

/* whole_matrices: never divide a ternary matrix, for an optimizer that needs all of it. */
bb_status bb_shards_create(const bb_param_table *table, int size, bool whole_matrices, bb_shards *out, bb_error *err);
void bb_shards_free(bb_shards *shards);
/* Returns an upper bound of the elements of a bucket. */
int64_t bb_shards_max_bucket(const bb_param_table *table, bool whole_matrices);

#endif
