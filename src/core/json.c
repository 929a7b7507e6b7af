// SPDX-License-Identifier: MIT
/* JSON text from files. */
#include "core/json.h"

#include <stdlib.h>

enum { PARSED_BYTES = 32 }; /* more than jansson allocates for a byte of any text */

bb_status bb_json_parse(const char *text, size_t length, const char *where, size_t offset, json_t **out, bb_error *err) {
    json_error_t at;
    *out = NULL;
    /* If memory runs out inside a token, jansson reports a syntax error or aborts. So check for memory first. */
    void *probe = length <= SIZE_MAX / PARSED_BYTES / 2 ? malloc(PARSED_BYTES * length + 65536) : NULL;
    free(probe);
    if (probe) *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);
    if (*out) return BB_OK;
    if (!probe || !at.text[0]) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read %zu bytes of JSON", where, length);
    return bb_fail(err, BB_ERR_FORMAT, "%s: not JSON at byte %zu: %s", where, offset + (size_t)at.position, at.text);
}

char *bb_json_text(const json_t *value, size_t flags) {
    size_t length = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *text = length > 0 ? malloc(length + 1) : NULL;
    if (text && json_dumpb(value, text, length, flags) != length) {
        free(text);
        return NULL;
    }
    if (text) text[length] = 0;
    return text;
}

bool bb_json_is_utf8(const char *text) {
    json_t *json = json_string(text);
    json_decref(json);
    return json != NULL;
}

const char *bb_json_type_name(const json_t *value) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "an integer",
        [JSON_REAL] = "a real number", [JSON_TRUE] = "true",      [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return value ? names[json_typeof(value)] : "nothing";
}
