// SPDX-License-Identifier: MIT
/* How ranks share out the parameters: the ranges that are exchanged at a time, and of these each rank's part. Only shapes and
 * the number of ranks decide. Parts begin at multiples of 4,096 elements of a tensor, so they divide neither a block of 8-bit
 * moments nor a tile of the gradient norm or of a scale; these are sums over tiles in the parameters' order, whoever summed
 * them. So no result depends on whether, or over how many ranks, the optimizer's state is shared. */
#ifndef BB_TRAINING_SHARDS_H
#define BB_TRAINING_SHARDS_H

#include <stdbool.h>

#include "model/params.h"

/* A range of the parameters (and gradients) that is exchanged at a time, shared out among the ranks at `cut`. */
typedef struct bb_bucket {
    int64_t begin, count;
    int64_t *cut; /* (size + 1), from begin on */
} bb_bucket;

/* A part of one tensor, which one rank updates. It begins at a multiple of BB_SHARD_UNIT from the tensor's beginning; of a
 * ternary tensor, where whole_rows says so, at a multiple of BB_TERNARY_ROWS rows. */
typedef struct bb_piece {
    int param, rank; /* param: of the table */
    int64_t first, count;
} bb_piece;

/* A multiple of the blocks of 8-bit moments and of the tiles of the norm, so that no sum is divided. */
enum { BB_SHARD_UNIT = 4096 };
/* Up to so many ranks, parts of ternary tensors are whole rows of codes, so that a rank can quantize its own. Among more of
 * them, parts that coarse would be uneven: a bucket has a few dozen. */
enum { BB_SHARD_WHOLE_ROWS = 16 };

typedef struct bb_shards {
    bb_bucket *buckets; /* from the last parameters to the first; none for one rank */
    int bucket_count;
    bb_piece *pieces; /* of all ranks, in the order of the parameters; for one rank these are the tensors */
    int piece_count;
    int *first_piece; /* (table.count + 1): of each tensor */
    int64_t *cuts;    /* the buckets' */
    bool whole_rows, whole_matrices;
} bb_shards;

/* whole_matrices: no ternary matrix is divided, for an optimizer that needs all of it. */
bb_status bb_shards_create(const bb_param_table *table, int size, bool whole_matrices, bb_shards *out, bb_error *err);
void bb_shards_free(bb_shards *shards);
/* Elements of the longest bucket, at the most. */
int64_t bb_shards_longest(const bb_param_table *table, bool whole_matrices);

#endif
