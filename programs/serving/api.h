// SPDX-License-Identifier: MIT
/* Requests in OpenAI's format: parses their JSON, and reports errors as JSON. */
#ifndef BB_PROGRAMS_API_H
#define BB_PROGRAMS_API_H

#include <jansson.h>

#include "request.h"

/* The content of an error object: https://platform.openai.com/docs/guides/error-codes. */
typedef struct bb_api_error {
    int status; /* HTTP status */
    const char *type;
    char param[32]; /* the invalid field; "": none */
    char message[512];
} bb_api_error;

typedef struct bb_api_limits {
    int64_t max_new_bytes;     /* limit for each text */
    int max_choices;           /* limit for a request */
    int context_length;        /* context length of the model */
    const char *chat_template; /* valid: see bb_chat_template_check */
} bb_api_limits;

/* Fills `error`; always returns false. */
bool bb_api_fail(bb_api_error *error, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Returns {"error": …}, malloc'd, or NULL if out of memory. */
char *bb_api_error_text(const bb_api_error *error);

/* Parses the body of a request. The caller owns the request, and sets its holders and connection. */
bool bb_api_parse(bb_request_kind kind, const char *body, size_t size, const bb_api_limits *limits, bb_request **out,
                  bb_api_error *error);
/* Returns the bytes of a JSON string or array of byte values; the caller frees data. */
bool bb_api_bytes(const json_t *value, const char *param, bb_bytes *out, bb_api_error *error);

#endif
