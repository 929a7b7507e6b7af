// SPDX-License-Identifier: MIT
/* What the HTTP server is told: of the model, of who may ask, of limits. */
#ifndef BB_PROGRAMS_HTTP_OPTIONS_H
#define BB_PROGRAMS_HTTP_OPTIONS_H

#include "api.h"
#include "engine.h"

typedef struct bb_runs bb_runs; /* runs.h */

typedef struct bb_http_options {
    const char *host;
    int port;                      /* 0: any that is free */
    bb_engine *engine;             /* NULL: no model, only what needs none */
    const char *model_name;        /* what /v1/models calls it */
    const char *model_path;        /* NULL without a model */
    char *(*describe)(void *user); /* the model as JSON, malloc'd */
    void *user;                    /* of describe */
    const char *const *keys;       /* (key_count); 0: everybody may */
    int key_count;
    const char *const *hosts; /* (host_count): names of this server besides addresses and localhost; "*": any */
    int host_count;
    const char *cors_origin; /* "*", or one origin; NULL: no other site's pages may */
    bb_runs *runs;           /* the dashboard; NULL: none */
    bb_api_limits limits;    /* chat_template NULL: the model's; context_length is the model's, too */
    int sequences;           /* for /props */
    size_t max_body;         /* bytes of a request */
    bool quiet;              /* no line for each request */
} bb_http_options;

#endif
