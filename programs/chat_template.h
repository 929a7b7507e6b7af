// SPDX-License-Identifier: MIT
/* The option --chat_template of serve, export and convert: see bb_chat_template_check. */
#ifndef BB_PROGRAMS_CHAT_TEMPLATE_H
#define BB_PROGRAMS_CHAT_TEMPLATE_H

#include "bitbyte.h"

#define BB_DEFAULT_CHAT_TEMPLATE "{role}: {content}\n"
#define BB_CHAT_TEMPLATE_HELP                                                                                                  \
    "how a message of a chat becomes text, with {role} and {content}, and escapes as in --stop; or a file that holds it, "     \
    "without escapes; the answer ends where the next message would begin"

/* The text that the option stands for, checked; free(*out). */
bb_status bb_chat_template_read(const char *given, char **out, bb_error *err);

#endif
