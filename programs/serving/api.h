// SPDX-License-Identifier: MIT
/* Requests in OpenAI's form: reads their JSON, and says in JSON what is wrong with them. */
#ifndef BB_PROGRAMS_API_H
#define BB_PROGRAMS_API_H

#include <jansson.h>

#include "request.h"

/* What becomes an error object: https://platform.openai.com/docs/guides/error-codes. */
typedef struct bb_api_error {
    int status; /* of HTTP */
    const char *type;
    char param[32]; /* the field; "": none */
    char message[512];
} bb_api_error;

typedef struct bb_api_limits {
    int64_t max_new_bytes;     /* of each text */
    int max_choices;           /* of a request */
    int context_length;        /* of the model */
    const char *chat_template; /* a good one: see bb_chat_template_check */
} bb_api_limits;

/* Always false; fills `error`. */
bool bb_api_fail(bb_api_error *error, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* {"error": …}, malloc'd. NULL: out of memory. */
char *bb_api_error_text(const bb_api_error *error);

/* Reads the body of a request. The request is the caller's; its id and holders are set. */
bool bb_api_parse(bb_request_kind kind, const char *body, size_t size, const bb_api_limits *limits, bb_request **out,
                  bb_api_error *error);
/* The bytes that a JSON string, or array of byte values, stands for; free(data). */
bool bb_api_bytes(const json_t *value, const char *param, bb_bytes *out, bb_api_error *error);

#endif
