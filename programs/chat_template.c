// SPDX-License-Identifier: MIT
#include "chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generate_options.h"

/* Reads a text, which contains a placeholder, or else a file of that name. */
static bb_status read_given(const char *given, char **out, size_t *size, bb_error *err) {
    if (!strstr(given, "{role}") && !strstr(given, "{content}")) {
        bb_status status = bb_read_text(given, NULL, out, size, err);
        if (status == BB_OK) return BB_OK;
        bb_error wrong = *err;
        snprintf(err->message, sizeof err->message,
                 "--chat_template: expected a text with {role} and {content}, or a file with such a text: %.700s",
                 wrong.message);
        return status;
    }
    *out = malloc(strlen(given) + 1);
    if (!*out) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code = BB_ERR_MEMORY;
    }
    bb_status status = bb_unescape("chat_template", given, (uint8_t *)*out, size, err);
    if (status == BB_OK) (*out)[*size] = '\0';
    return status;
}

bb_status bb_chat_template_read(const char *given, char **out, bb_error *err) {
    size_t size = 0;
    char *text = NULL;
    *out = NULL;
    bb_status status = read_given(given, &text, &size, err);
    if (status == BB_OK && strlen(text) != size) {
        snprintf(err->message, sizeof err->message, "--chat_template: expected a text without zero bytes");
        status = err->code = BB_ERR_ARGUMENT;
    } else if (status == BB_OK && (status = bb_chat_template_check(text, err)) != BB_OK) {
        bb_error wrong = *err;
        snprintf(err->message, sizeof err->message, "--chat_template %.300s: %.600s", given, wrong.message);
    }
    if (status == BB_OK)
        *out = text;
    else
        free(text);
    return status;
}
