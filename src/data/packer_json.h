// SPDX-License-Identifier: MIT
/* Texts in JSON. */
#ifndef BB_DATA_PACKER_JSON_H
#define BB_DATA_PACKER_JSON_H

#include "core/status.h"

typedef bb_status (*bb_pack_emit)(void *user, const void *text, size_t size, bb_error *err);

typedef struct bb_pack_extractor {
    const char *const *keys; /* (key_count), the first wins */
    int key_count;
    bb_pack_emit emit;
    void *user;
    int64_t records, empty_records; /* empty: no text under any key */
} bb_pack_extractor;

/* Takes all JSON values in text, or one and nothing else; line: the number of text's first line, for messages.
 * What strict JSON forbids and other programs write does not cost the record: NaN, Infinity and numbers past the range of a
 * double are numbers, and half a surrogate pair is U+FFFD; they are overwritten in text.
 * The elements of an array at the top are a record each, any other value is one record.
 * A record that has one of the keys itself gives the text there: a string, or all strings of an array. Otherwise whatever it
 * holds is searched in the same way, so an object that holds an array of records gives them all. BB_ERR_FORMAT when malformed;
 * one value is then not taken at all, of several those before it are. */
bb_status bb_pack_extract(bb_pack_extractor *extractor, char *text, size_t size, bool one_value, int64_t line, bb_error *err);

#endif
