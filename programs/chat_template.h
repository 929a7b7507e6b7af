// SPDX-License-Identifier: MIT
/* How the messages of a chat become text. A template is the text of one message with {role} and {content}: "{role}: {content}\n".
 * The prompt is all messages in it, then the text before {content} for the role "assistant". An answer ends where the text after
 * {content} begins the next message of a role of the request. */
#ifndef BB_PROGRAMS_CHAT_TEMPLATE_H
#define BB_PROGRAMS_CHAT_TEMPLATE_H

#include "bitbyte.h"

#define BB_DEFAULT_CHAT_TEMPLATE "{role}: {content}\n"

/* NULL: good; else what is wrong. */
const char *bb_chat_template_check(const char *chat_template);
/* The text of --chat_template with its escapes replaced, checked; free(*out). */
bb_status bb_chat_template_read(const char *given, char **out, bb_error *err);

#endif
