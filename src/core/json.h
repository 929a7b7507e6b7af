// SPDX-License-Identifier: MIT
/* JSON text from files, read by jansson, with our kind of message. */
#ifndef BB_CORE_JSON_H
#define BB_CORE_JSON_H

#include <jansson.h>

#include "core/status.h"

/* Parses `length` bytes of text. An object with a duplicate key is an error. `where` begins the message; `offset` is the text's
 * offset in its file, for messages. The caller owns the reference *out. */
bb_status bb_json_parse(const char *text, size_t length, const char *where, size_t offset, json_t **out, bb_error *err);

/* Returns a path, or a message that contains paths, as a JSON string: see bb_path_text. NULL: out of memory. */
json_t *bb_json_path(const char *path);

/* Returns whether a text is valid UTF-8, as JSON requires. */
bool bb_json_is_utf8(const char *text);

/* "an integer", "true", …; "nothing" for NULL. */
const char *bb_json_type_name(const json_t *value);

/* Returns the value as text, malloc'd; NULL if out of memory or if value is NULL. (json_dumps silently omits pieces if memory
 * runs out.) */
char *bb_json_text(const json_t *value, size_t flags);

#endif
