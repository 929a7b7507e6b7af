// SPDX-License-Identifier: MIT
/* Blocks of a stream that are decoded side by side: the lanes of all share the passes of the model, which decoding a block of one
 * lane alone would waste. The bytes do not depend on how many there are. */
#ifndef BB_CODING_BLOCK_GROUP_H
#define BB_CODING_BLOCK_GROUP_H

#include "coding/stream.h"

typedef struct bb_block_group bb_block_group;
typedef struct bb_block_group_options {
    int blocks;                                                      /* most of them; 0: what memory and lanes suggest */
    bool (*on_block)(void *user, const uint8_t *bytes, size_t size); /* a block that is whole and checked; false: BB_ERR_IO */
    void (*on_bytes)(void *user, int64_t done);                      /* bytes decoded since the last on_block; may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL */
} bb_block_group_options;

/* Fails if the stream was made with another model or device. */
bb_status bb_block_group_open(bb_model *model, const bb_stream_header *header, const bb_block_group_options *options,
                              bb_block_group **out, bb_error *err);
void bb_block_group_close(bb_block_group *group);
/* Makes room for the next block. at: the byte of the stream at which its coded bytes begin, for messages. *coded: (head->coded), to
 * be filled. */
bb_status bb_block_group_prepare(bb_block_group *group, const bb_stream_block *head, uint64_t at, uint8_t **coded,
                                 bb_error *err);
/* The block that was prepared is whole. */
void bb_block_group_add(bb_block_group *group);
/* Whether it should be decoded now. */
bool bb_block_group_full(const bb_block_group *group);
/* Decodes what was added, and gives it to on_block in order, up to the first block that is damaged. A block that is
 * prepared stays so. */
bb_status bb_block_group_decode(bb_block_group *group, bb_error *err);

#endif
