// SPDX-License-Identifier: MIT
/* Configuration of the HTTP server: model, access, limits. */
#ifndef BB_PROGRAMS_HTTP_OPTIONS_H
#define BB_PROGRAMS_HTTP_OPTIONS_H

#include "api.h"
#include "engine.h"

typedef struct bb_runs bb_runs; /* runs.h */

typedef struct bb_http_options {
    const char *host;
    int port;                /* 0: any free port */
    bb_engine *engine;       /* NULL: no model; only paths that need none work */
    const char *model_name;  /* its name in /v1/models */
    const char *const *keys; /* (key_count); no keys: everybody has access */
    int key_count;
    const char *const *hosts; /* (host_count): names of this server besides addresses and localhost; "*": any */
    int host_count;
    const char *cors_origin; /* "*", or one origin; NULL: pages of other sites are refused */
    bb_runs *runs;           /* the dashboard; NULL: none */
    bb_api_limits limits;    /* chat_template NULL: the model's; context_length is set from the model, too */
    int sequences;           /* for /props */
    size_t max_body;         /* maximum size of a request in bytes */
    bool quiet;              /* do not log requests */
} bb_http_options;

#endif
