// SPDX-License-Identifier: MIT
/* One request to the model, from its JSON to its last byte. The HTTP thread makes it, the engine's thread fills in what the model
 * writes, and both let go of it: it is freed when the connection is gone and no text of it runs any more. */
#ifndef BB_PROGRAMS_REQUEST_H
#define BB_PROGRAMS_REQUEST_H

#include "bitbyte.h"

#include "../utf8.h"

typedef enum bb_request_kind { BB_REQUEST_COMPLETION, BB_REQUEST_CHAT, BB_REQUEST_EMBEDDING, BB_REQUEST_SCORE } bb_request_kind;

typedef struct bb_token {
    uint8_t byte;
    bool prompt;
    int top_count;  /* of its row in bb_choice.top */
    double logprob; /* NAN: nothing predicted it */
} bb_token;

typedef struct bb_request bb_request;

/* One of the texts that a request asks for. */
typedef struct bb_choice {
    bb_request *request;
    bb_bytes prompt; /* in request->prompts */
    uint64_t seed;
    /* of the engine's thread */
    void *engine, *generation; /* the engine, and the loaded model that it runs on; NULL: not begun */
    int64_t id;                /* in the batch */
    /* under the engine's lock */
    bb_token *tokens;
    bb_candidate *top; /* (count, request->top) */
    size_t count, capacity;
    bool ended;
    bb_finish finish;
    bb_generate_metrics metrics;
    float *embedding; /* (d_model) */
    char error[256];  /* "": none */
    /* of the answer: what a stream has sent so far */
    size_t sent;
    bb_utf8 utf8;
    bool begun, closed;
} bb_choice;

struct bb_request {
    bb_request_kind kind;
    char id[40];
    int64_t created;
    bb_bytes *prompts; /* (prompt_count), each malloc'd */
    int prompt_count, n;
    bb_choice *choices; /* (choice_count = prompt_count * n), those of a prompt beside each other */
    int choice_count;
    bb_generate_options options;
    bb_bytes *stops; /* of the options; each malloc'd */
    bool stream, include_usage, echo, logprobs, return_bytes, base64;
    int top; /* likeliest bytes that are told of each byte */
    /* under the engine's lock */
    int holders; /* the connection, and the engine */
    int running; /* choices that have not ended */
    bool cancelled, timed_out, draining_cut;
    double deadline;             /* bb_monotonic_seconds */
    void *connection;            /* the exchange; NULL: gone */
    int socket;                  /* of the connection */
    bool suspended;              /* the connection waits for news */
    bool probed;                 /* see bb_http_has_left */
    bb_request *next, *previous; /* in the engine's list */
    bool done_sent;              /* of a stream: its last event */
    int64_t prompt_bytes;        /* of all prompts */
};

/* Frees it whatever its state. */
void bb_request_free(bb_request *request);

#endif
