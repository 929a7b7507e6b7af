// SPDX-License-Identifier: MIT
/* JSON output: as JSON text, and as tables for people. Independent of terminals and commands. */
#ifndef BB_PROGRAMS_JSON_OUT_H
#define BB_PROGRAMS_JSON_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Returns JSON text with exact numbers, to be freed by the caller; NULL if out of memory or if a string is not UTF-8. */
char *bb_json_dump(json_t *json, size_t flags);
/* A path, or a message with paths, as a JSON string; see bb_path_text. */
json_t *bb_json_path_string(const char *path);
/* Prints one line of JSON, flushes, and releases `json`. Returns false if `json` is NULL or bb_json_dump fails. */
bool bb_json_write(json_t *json, FILE *out);
/* Prints JSON as indented text: nested objects under their names, arrays of objects as tables. */
void bb_json_show(json_t *json, FILE *out);
/* Adds bytes as "text", with U+FFFD for invalid UTF-8; in that case also adds all bytes as "hex". */
void bb_json_add_bytes(json_t *object, const uint8_t *bytes, size_t length);

#endif
