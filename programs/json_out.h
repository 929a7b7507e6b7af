// SPDX-License-Identifier: MIT
/* JSON as text: for machines, and as tables for people. Knows streams, but no terminal and no command. */
#ifndef BB_PROGRAMS_JSON_OUT_H
#define BB_PROGRAMS_JSON_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* JSON text whose numbers read back as they were; free() it. NULL when out of memory, or where a string is not UTF-8. */
char *bb_json_dump(json_t *json, size_t flags);
/* A path, or a message with paths in it, as a JSON string: see bb_path_text. */
json_t *bb_json_path_string(const char *path);
/* One line of JSON, flushed; takes the reference. False where `json` is NULL or has no text. */
bool bb_json_write(json_t *json, FILE *out);
/* A JSON value as indented text for people: nested objects under their name, lists of objects as tables. */
void bb_json_show(json_t *json, FILE *out);
/* Any bytes as "text", with U+FFFD where they are not UTF-8; then every byte of them also as "hex". */
void bb_json_add_bytes(json_t *object, const uint8_t *bytes, size_t length);

#endif
