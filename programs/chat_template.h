// SPDX-License-Identifier: MIT
/* The option --chat_template of serve, export and convert: see bb_chat_template_check. */
#ifndef BB_PROGRAMS_CHAT_TEMPLATE_H
#define BB_PROGRAMS_CHAT_TEMPLATE_H

#include "bitbyte.h"

#define BB_DEFAULT_CHAT_TEMPLATE "{role}: {content}\n"
#define BB_CHAT_TEMPLATE_HELP                                                                                                  \
    "text of one chat message, with {role} and {content} and escapes as in --stop; or a file with that text, "                 \
    "without escapes; an answer ends where the next message would begin"

/* Returns the text that the option specifies, validated; the caller frees *out. */
bb_status bb_chat_template_read(const char *given, char **out, bb_error *err);

#endif
