// SPDX-License-Identifier: MIT
/* Decodes several blocks of a stream together: the lanes of all blocks share the passes of the model, which a single block of
 * one lane would waste. The decoded bytes do not depend on the number of blocks. */
#ifndef BB_CODING_BLOCK_GROUP_H
#define BB_CODING_BLOCK_GROUP_H

#include "coding/stream.h"

typedef struct bb_block_group bb_block_group;
typedef struct bb_block_group_options {
    int blocks; /* maximum number of blocks; 0: chosen from memory and lanes */
    bool (*on_block)(void *user, const uint8_t *bytes,
                     size_t size);              /* called with each block after its checksum matched; false: BB_ERR_IO */
    void (*on_bytes)(void *user, int64_t done); /* bytes decoded since the last on_block; may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL */
} bb_block_group_options;

/* Fails if the stream was made with another model or device. */
bb_status bb_block_group_open(bb_model *model, const bb_stream_header *header, const bb_block_group_options *options,
                              bb_block_group **out, bb_error *err);
void bb_block_group_close(bb_block_group *group);
/* Allocates memory for the next block. at: the offset in the stream of its coded bytes, for messages. *coded: (head->coded), to
 * be filled by the caller. */
bb_status bb_block_group_prepare(bb_block_group *group, const bb_stream_block *head, uint64_t at, uint8_t **coded,
                                 bb_error *err);
/* Adds the prepared block, whose coded bytes are complete. */
void bb_block_group_add(bb_block_group *group);
/* Returns whether the group should be decoded before another block is prepared. */
bool bb_block_group_full(const bb_block_group *group);
/* Decodes the added blocks and passes them to on_block in order, up to the first damaged one. A prepared block that was not
 * added stays prepared. */
bb_status bb_block_group_decode(bb_block_group *group, bb_error *err);

#endif
