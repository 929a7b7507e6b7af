/* JSON text from files.
 * SPDX-License-Identifier: MIT */
#include "core/json.h"

bb_status bb_json_parse(const char *text, size_t length, const char *where, size_t offset, json_t **out, bb_error *err) {
    json_error_t at;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);
    if (*out) return BB_OK;
    /* jansson leaves the text empty where memory ran out between two tokens. */
    if (!at.text[0]) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read %zu bytes of JSON", where, length);
    return bb_fail(err, BB_ERR_FORMAT, "%s: not JSON at byte %zu: %s", where, offset + (size_t)at.position, at.text);
}

const char *bb_json_type_name(const json_t *value) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "an integer",
        [JSON_REAL] = "a real number", [JSON_TRUE] = "true",      [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return value ? names[json_typeof(value)] : "nothing";
}
