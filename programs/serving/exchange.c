// SPDX-License-Identifier: MIT
#include "exchange.h"

#include <stdlib.h>
#include <string.h>

/* Adds the headers of every answer. */
static void add_headers(const bb_exchange *x, int status, const char *type, struct MHD_Response *response) {
    const bb_http_options *o = &x->http->options;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (!MHD_get_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (o->cors_origin) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, o->cors_origin);
        if (strcmp(o->cors_origin, "*") != 0) MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Origin");
    }
    if (status == 429 || status == 503) MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    if (status == 401) MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
}

/* Queues the response and releases it. */
static enum MHD_Result queue(bb_exchange *x, int status, const char *type, struct MHD_Response *response) {
    if (!response) return MHD_NO;
    add_headers(x, status, type, response);
    x->status = status;
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result bb_answer_text(bb_exchange *x, int status, const char *type, char *text) {
    if (!text) return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!response) free(text);
    return queue(x, status, type, response);
}

static void add_page_headers(struct MHD_Response *response, const char *csp) {
    MHD_add_response_header(response, "Content-Security-Policy", csp);
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "X-Frame-Options", "DENY");
}

enum MHD_Result bb_answer_page(bb_exchange *x, const char *csp, char *text) {
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (response)
        add_page_headers(response, csp);
    else
        free(text);
    return queue(x, 200, "text/html; charset=utf-8", response);
}

enum MHD_Result bb_answer_elsewhere(bb_exchange *x, const char *path) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response) MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, path);
    return queue(x, 302, "text/plain", response);
}

enum MHD_Result bb_answer_static(bb_exchange *x, const char *type, const char *csp, const char *text, size_t size) {
    /* the library only reads it */
    struct MHD_Response *response = MHD_create_response_from_buffer(size, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (response && csp) add_page_headers(response, csp);
    return queue(x, 200, type, response);
}

enum MHD_Result bb_answer_json(bb_exchange *x, int status, json_t *json) {
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    return bb_answer_text(x, status, "application/json", text);
}

enum MHD_Result bb_answer_error(bb_exchange *x, const bb_api_error *error) {
    return bb_answer_text(x, error->status, "application/json", bb_api_error_text(error));
}

enum MHD_Result bb_answer_reader(bb_exchange *x, const char *type, MHD_ContentReaderCallback reader) {
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, reader, x, NULL);
    if (response) MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache, no-transform");
    if (response) MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* nginx forwards events immediately */
    return queue(x, 200, type, response);
}
