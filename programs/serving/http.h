// SPDX-License-Identifier: MIT
/* The HTTP server, on libmicrohttpd: connections, keys, limits, routes. */
#ifndef BB_PROGRAMS_HTTP_H
#define BB_PROGRAMS_HTTP_H

#include "http_options.h"

typedef struct bb_http bb_http;

bb_status bb_http_open(const bb_http_options *options, bb_http **out, bb_error *err);
/* Accepts no more connections; open ones continue. */
void bb_http_quiesce(bb_http *http);
/* Waits some seconds until all answers have been sent. */
void bb_http_finish(bb_http *http);
void bb_http_close(bb_http *http);
int bb_http_port(const bb_http *http);
/* Implement bb_engine_options.wake and .has_left. */
void bb_http_wake(void *connection);
bool bb_http_has_left(bb_request *request);
/* Writes a log line: JSON on standard error. event: e.g. "reloaded"; detail: "" or details. */
void bb_http_log(void *user, const char *event, const char *detail);

#endif
