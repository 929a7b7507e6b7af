// SPDX-License-Identifier: MIT
/* Paths as text. Unix file names are bytes, JSON is UTF-8. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static bool is_utf8(const char *text) {
    json_t *string = json_string(text);
    json_decref(string);
    return string != NULL;
}

/* If anything is escaped, backslashes are too, so that the text is unambiguous. */
char *bb_path_text(const char *path) {
    if (!path) return NULL;
    if (is_utf8(path) && !strstr(path, "\\x")) return strdup(path);
    char *text = malloc(4 * strlen(path) + 1), *at = text;
    if (!text) return NULL;
    for (const char *p = path; *p; p++) {
        unsigned byte = (unsigned char)*p;
        if (byte < 0x80 && byte != '\\')
            *at++ = *p;
        else
            at += sprintf(at, "\\x%02x", byte);
    }
    *at = '\0';
    return text;
}

static int hex_digit(char c) {
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

char *bb_path_from_text(const char *text) {
    if (!text) return NULL;
    char *path = malloc(strlen(text) + 1), *at = path;
    if (!path) return NULL;
    for (const char *p = text; *p; p++) {
        int high = p[0] == '\\' && p[1] == 'x' ? hex_digit(p[2]) : -1, low = high >= 0 ? hex_digit(p[3]) : -1;
        bool escaped = low >= 0;
        *at++ = escaped ? (char)(high * 16 + low) : *p;
        if (escaped) p += 3;
    }
    *at = '\0';
    return path;
}

json_t *bb_json_path(const char *path) {
    char *text = bb_path_text(path);
    json_t *string = text ? json_string(text) : NULL;
    free(text);
    return string;
}
