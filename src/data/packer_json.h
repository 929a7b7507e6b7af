// SPDX-License-Identifier: MIT
/* Extracts texts from JSON. */
#ifndef BB_DATA_PACKER_JSON_H
#define BB_DATA_PACKER_JSON_H

#include "core/status.h"

typedef bb_status (*bb_pack_emit)(void *user, const void *text, size_t size, bb_error *err);

typedef struct bb_pack_extractor {
    const char *const *keys; /* (key_count), in order of preference */
    int key_count;
    bb_pack_emit emit;
    void *user;
    int64_t records, empty_records; /* empty: records without text under any key */
} bb_pack_extractor;

/* Extracts texts from all JSON values in `text`, or, with one_value, from exactly one. line: number of the first line, for
 * messages. Some invalid JSON that other programs write is accepted: NaN, Infinity and numbers beyond the range of a double
 * count as numbers, and a lone surrogate as U+FFFD. They are overwritten in `text`. Each element of a top-level array is a
 * record, and so is any other top-level value. The text of a record is the value of its first key among `keys`: a string, or
 * all strings of an array. A record without any of the keys is searched recursively, so an object that contains an array of
 * records yields the texts of all. Malformed JSON is BB_ERR_FORMAT; the values before it have been extracted. */
bb_status bb_pack_extract(bb_pack_extractor *extractor, char *text, size_t size, bool one_value, int64_t line, bb_error *err);

#endif
