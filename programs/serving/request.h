// SPDX-License-Identifier: MIT
/* A request to the model, from its JSON to its last byte. The HTTP thread creates it, the engine's thread fills in the model's
 * output, and both hold a reference: it is freed when the connection is closed and none of its texts is running. */
#ifndef BB_PROGRAMS_REQUEST_H
#define BB_PROGRAMS_REQUEST_H

#include "bitbyte.h"

#include "../utf8.h"

typedef enum bb_request_kind { BB_REQUEST_COMPLETION, BB_REQUEST_CHAT, BB_REQUEST_EMBEDDING, BB_REQUEST_SCORE } bb_request_kind;

typedef struct bb_token {
    uint8_t byte;
    bool prompt;
    int top_count;  /* length of its row in bb_choice.top */
    double logprob; /* NAN: no prediction */
} bb_token;

typedef struct bb_request bb_request;

/* One of the texts of a request. */
typedef struct bb_choice {
    bb_request *request;
    bb_bytes prompt; /* points into request->prompts */
    uint64_t seed;
    /* used by the engine's thread */
    void *engine, *generation; /* the engine, and the loaded model that it runs on; NULL: not started */
    int64_t id;                /* id in the batch */
    /* protected by the engine's lock */
    bb_token *tokens;
    bb_candidate *top; /* (count, request->top) */
    size_t count, capacity;
    bool ended;
    bb_finish finish;
    bb_generate_metrics metrics;
    float *embedding;      /* (embedding_size) */
    size_t embedding_size; /* d_model of the model that it ran on */
    char error[256];       /* "": none */
    /* of the answer: what a stream has sent so far */
    size_t sent;
    bb_utf8 utf8;
    bool begun, echoed, closed; /* echoed: the prompt has been written */
} bb_choice;

struct bb_request {
    bb_request_kind kind;
    char id[40];
    int64_t created;
    bb_bytes *prompts; /* (prompt_count), each malloc'd */
    int prompt_count, n;
    bb_choice *choices; /* (choice_count = prompt_count * n), grouped by prompt */
    int choice_count;
    bb_generate_options options;
    bb_bytes *stops; /* stop texts of the options, each malloc'd */
    bool stream, include_usage, echo, logprobs, return_bytes, base64;
    int top; /* number of likeliest bytes reported for each byte */
    /* protected by the engine's lock */
    int holders; /* references: the connection's and the engine's */
    int running; /* unfinished choices */
    bool cancelled, timed_out, draining_cut;
    double deadline;             /* as bb_monotonic_seconds */
    void *connection;            /* the exchange; NULL: closed */
    int socket;                  /* the connection's socket */
    bool suspended;              /* the connection is waiting */
    bool probed;                 /* see bb_http_has_left */
    bb_request *next, *previous; /* links of the engine's list */
    bool done_sent;              /* stream: the last event has been sent */
    int64_t prompt_bytes;        /* total size of all prompts */
};

/* Frees the request, whatever its state. */
void bb_request_free(bb_request *request);

#endif
