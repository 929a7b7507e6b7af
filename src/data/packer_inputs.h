// SPDX-License-Identifier: MIT
/* The inputs of a pack: finds files, in a fixed order. */
#ifndef BB_DATA_PACKER_INPUTS_H
#define BB_DATA_PACKER_INPUTS_H

#include "data/packer_job.h"

typedef enum bb_pack_kind {
    BB_PACK_RAW,       /* the bytes are one document */
    BB_PACK_JSON,      /* .json: one or more JSON values, each searched for texts */
    BB_PACK_JSON_LINES /* .jsonl, .ndjson: one JSON value a line */
} bb_pack_kind;

typedef struct bb_pack_input {
    char *path;
    bb_pack_kind kind;
    int64_t documents, bytes; /* packed documents and bytes, without separators */
    bool skipped;
} bb_pack_input;

typedef struct bb_pack_inputs {
    bb_pack_input *items; /* (count), in the order of packing */
    int64_t count, capacity;
    int64_t duplicates; /* further paths to files already in the list */
} bb_pack_inputs;

/* Inputs keep the caller's order; the files of a folder are sorted by path, bytewise. Each file is packed once, even if several
 * paths lead to it, so links are followed safely. In folders, names that begin with a dot are skipped, and so is out_dir. */
bb_status bb_pack_find_inputs(bb_pack_job *job, bb_pack_inputs *out, bb_error *err);
void bb_pack_inputs_free(bb_pack_inputs *inputs);
/* Writes a summary, most frequent first: "12 .bin, 3 .pdf, 1 without an extension". */
void bb_pack_left_out_text(const bb_pack_job *job, char *out, size_t size);

#endif
