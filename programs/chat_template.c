// SPDX-License-Identifier: MIT
#include "chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generate_options.h"

const char *bb_chat_template_check(const char *chat_template) {
    const char *role = strstr(chat_template, "{role}"), *content = strstr(chat_template, "{content}");
    if (!role || !content) return "expected a text with {role} and {content}";
    if (role > content) return "expected {role} before {content}";
    if (!content[strlen("{content}")]) return "expected a text after {content}, such as a line break";
    return NULL;
}

bb_status bb_chat_template_read(const char *given, char **out, bb_error *err) {
    size_t length = 0;
    char *text = malloc(strlen(given) + 1);
    *out = NULL;
    if (!text) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code = BB_ERR_MEMORY;
    }
    bb_status status = bb_unescape("chat_template", given, (uint8_t *)text, &length, err);
    text[length] = '\0';
    const char *wrong = strlen(text) != length ? "expected no \\x00" : bb_chat_template_check(text);
    if (status == BB_OK && wrong) {
        snprintf(err->message, sizeof err->message, "--chat_template: %s", wrong);
        status = err->code = BB_ERR_ARGUMENT;
    }
    if (status == BB_OK)
        *out = text;
    else
        free(text);
    return status;
}
