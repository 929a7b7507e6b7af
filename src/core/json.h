// SPDX-License-Identifier: MIT
/* JSON text from files, read by jansson, with our kind of message. */
#ifndef BB_CORE_JSON_H
#define BB_CORE_JSON_H

#include <jansson.h>

#include "core/status.h"

/* Reads `length` bytes of text, in which no object has a key twice. `where` begins the message; `offset` is added to the place
 * in the text, for text that stands further on in a file. *out is the caller's reference. */
bb_status bb_json_parse(const char *text, size_t length, const char *where, size_t offset, json_t **out, bb_error *err);

/* A path, or a message with paths in it, as a JSON string: see bb_path_text. NULL: no memory. */
json_t *bb_json_path(const char *path);

/* "an integer", "true", …; "nothing" for NULL. */
const char *bb_json_type_name(const json_t *value);

/* The value as text, malloc'd; NULL: no memory, or no value. In json_dumps a lack of memory leaves pieces out of the text. */
char *bb_json_text(const json_t *value, size_t flags);

#endif
