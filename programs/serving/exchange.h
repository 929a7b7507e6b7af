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
    atomic_int exchanges; /* open exchanges: not answered yet, or being sent */
} bb_http;

typedef struct bb_exchange bb_exchange;
struct bb_exchange {
    bb_http *http;
    struct MHD_Connection *connection;
    char *method, *path;
    bool interim; /* the client accepts interim responses: it speaks HTTP/1.1 */
    char *body;
    size_t size, capacity;
    bb_request *request; /* the request to the model */
    double begin;        /* start time, as bb_monotonic_seconds */
    int status;          /* status that was sent; 0: none yet */
    bool received;       /* the request has been received completely, and the library knows: see submit in http.c */
    /* for a stream: written, but not sent yet */
    char *pending;
    size_t pending_size, pending_sent;
    /* for a stream of changes of runs */
    bb_exchange *next_waiting;
    bool told, told_waited;
    uint64_t told_version;
};

/* Answers with malloc'd text, whose ownership it takes (NULL: out of memory). */
enum MHD_Result bb_answer_text(bb_exchange *x, int status, const char *type, char *text);
/* The same with a static text. */
enum MHD_Result bb_answer_static(bb_exchange *x, const char *type, const char *csp, const char *text, size_t size);
/* Answers with a page and its content security policy; takes ownership of `text` (malloc'd). */
enum MHD_Result bb_answer_page(bb_exchange *x, const char *csp, char *text);
/* Redirects to another path of this server. */
enum MHD_Result bb_answer_elsewhere(bb_exchange *x, const char *path);
enum MHD_Result bb_answer_error(bb_exchange *x, const bb_api_error *error);
/* Takes ownership of `json`. */
enum MHD_Result bb_answer_json(bb_exchange *x, int status, json_t *json);
/* Answers with content from `reader`, see MHD_create_response_from_callback; its argument is the exchange. */
enum MHD_Result bb_answer_reader(bb_exchange *x, const char *type, MHD_ContentReaderCallback reader);

/* Returns the template of the option, else of the model, else the default. */
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
