// SPDX-License-Identifier: MIT
/* A request over HTTP and its answer, for the files of the server alone. Each uses those above it in this list:
 *   exchange.c   answers: JSON, errors, pages, events
 *   status.c     what the server says of itself: /health, /metrics, /props, /v1/models
 *   runs.c       the dashboard of training runs
 *   access.c     who may ask
 *   http.c       connections, keys, limits, routes */
#ifndef BB_PROGRAMS_EXCHANGE_H
#define BB_PROGRAMS_EXCHANGE_H

#include <stdatomic.h>
#include <sys/types.h> /* microhttpd.h needs it */

#include <microhttpd.h>

#include "http_options.h"

typedef struct bb_http {
    bb_http_options options;
    struct MHD_Daemon *daemon;
    int port;
    atomic_int exchanges; /* not answered yet, or being sent */
} bb_http;

typedef struct bb_exchange bb_exchange;
struct bb_exchange {
    bb_http *http;
    struct MHD_Connection *connection;
    char *method, *path;
    bool interim; /* the client takes interim responses: it speaks HTTP/1.1 */
    char *body;
    size_t size, capacity;
    bb_request *request; /* of a request to the model */
    int d_model;         /* of that model */
    double begin;        /* bb_monotonic_seconds */
    int status;          /* that was answered; 0: not yet */
    bool received;       /* the request is, and the library knows: see submit in http.c */
    /* a stream: what was written and not sent yet */
    char *pending;
    size_t pending_size, pending_sent;
    /* a stream of the changes of runs */
    bb_exchange *next_waiting;
    bool told, told_waited;
    uint64_t told_version;
};

/* Answers with text that the server owns from here on (malloc'd; NULL is an error of memory). */
enum MHD_Result bb_answer_text(bb_exchange *x, int status, const char *type, char *text);
/* The same with a text that stays. */
enum MHD_Result bb_answer_static(bb_exchange *x, const char *type, const char *csp, const char *text, size_t size);
/* A page with its content security policy; the server owns `text` (malloc'd) from here on. */
enum MHD_Result bb_answer_page(bb_exchange *x, const char *csp, char *text);
/* To another place of this server. */
enum MHD_Result bb_answer_elsewhere(bb_exchange *x, const char *path);
enum MHD_Result bb_answer_error(bb_exchange *x, const bb_api_error *error);
/* Releases `json`. */
enum MHD_Result bb_answer_json(bb_exchange *x, int status, json_t *json);
/* A response with `reader` as its content, as MHD_create_response_from_callback says; the exchange is its argument. */
enum MHD_Result bb_answer_reader(bb_exchange *x, const char *type, MHD_ContentReaderCallback reader);

/* The option's, else the model's, else the default. */
const char *bb_chat_template_in_use(const bb_http_options *options, const bb_engine_info *model);

/* ---- status.c */
enum MHD_Result bb_status_health(bb_exchange *x);
enum MHD_Result bb_status_metrics(bb_exchange *x);
enum MHD_Result bb_status_props(bb_exchange *x);
enum MHD_Result bb_status_models(bb_exchange *x);
enum MHD_Result bb_status_describe(bb_exchange *x);
enum MHD_Result bb_status_tokenize(bb_exchange *x);
enum MHD_Result bb_status_detokenize(bb_exchange *x);

#endif
