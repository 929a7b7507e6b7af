// SPDX-License-Identifier: MIT
/* Status codes and their messages. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT(x) #x
#define VERSION_TEXT(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *bb_version(void) { return VERSION_TEXT(BB_VERSION_MAJOR, BB_VERSION_MINOR, BB_VERSION_PATCH); }

const char *bb_status_name(bb_status status) {
    switch (status) {
    case BB_OK: return "ok";
    case BB_ERR_ARGUMENT: return "argument";
    case BB_ERR_IO: return "io";
    case BB_ERR_FORMAT: return "format";
    case BB_ERR_DATA: return "data";
    case BB_ERR_MEMORY: return "memory";
    case BB_ERR_UNSUPPORTED: return "unsupported";
    case BB_ERR_NUMERIC: return "numeric";
    case BB_ERR_INTERRUPTED: return "interrupted";
    case BB_ERR_INTERNAL: return "internal";
    case BB_ERR_PEER: return "peer";
    }
    return "unknown";
}

/* Names from files appear in messages: without this a crafted file could send line breaks and escape sequences to a
 * terminal. */
static void replace_control_characters(char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f) *text = '?';
    }
}

/* Writes the formatted message, then `tail`, to err. Truncates what does not fit. */
static void set_message(bb_error *err, bb_status code, const char *tail, const char *fmt, va_list args) {
    char text[sizeof err->message]; /* the arguments may point into err->message */
    int wanted = vsnprintf(text, sizeof text, fmt, args);
    size_t used = wanted < 0 ? 0 : (size_t)wanted < sizeof text ? (size_t)wanted : sizeof text - 1;
    size_t more = strnlen(tail, sizeof text - 1 - used);
    memcpy(text + used, tail, more);
    text[used + more] = '\0';
    replace_control_characters(text);
    err->code = code;
    memcpy(err->message, text, used + more + 1);
}

bb_status(bb_fail)(bb_error *err, bb_status code, const char *fmt, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    set_message(err, code, "", fmt, args);
    va_end(args);
    return code;
}

bb_status bb_fail_prefix(bb_error *err, bb_status code, const char *fmt, ...) {
    if (!err) return code;
    char old[sizeof err->message + 2] = ": ";
    memcpy(old + 2, err->message, sizeof err->message);
    va_list args;
    va_start(args, fmt);
    set_message(err, code, old, fmt, args);
    va_end(args);
    return code;
}

bool bb_status_is_damage(bb_status status) { return status == BB_ERR_IO || status == BB_ERR_FORMAT || status == BB_ERR_DATA; }

bb_status bb_require_pointers(bb_error *err, const char *function, const char *names, const void *const *pointers,
                              size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t length = strcspn(names, ",");
        if (!pointers[i]) return bb_fail(err, BB_ERR_ARGUMENT, "%s: %.*s is NULL", function, (int)length, names);
        names += length + strspn(names + length, ", ");
    }
    return BB_OK;
}
