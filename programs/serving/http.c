// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../json_out.h"
#include "../progress.h"
#include "access.h"
#include "answer.h"
#include "exchange.h"
#include "http.h"
#include "page.h"
#include "runs.h"

enum { IDLE_SECONDS = 60, MAX_CONNECTIONS = 1000 };

/* ---- log ---------------------------------------------------------------------------------------------------------------- */

static json_t *time_json(void) {
    char text[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    return json_string(text);
}

void bb_http_log(void *user, const char *event, const char *detail) {
    (void)user;
    (void)bb_json_write(json_pack("{s:o,s:s,s:o*}", "time", time_json(), "event", event, "detail",
                                  detail[0] ? bb_json_path_string(detail) : NULL),
                        stderr);
}

static void log_exchange(const bb_exchange *x) {
    const bb_request *r = x->request;
    int64_t new_bytes = 0;
    if (x->http->options.quiet) return;
    for (int i = 0; r && i < r->choice_count; i++) new_bytes += (int64_t)r->choices[i].count;
    json_t *line = json_pack("{s:o,s:s,s:o,s:o,s:i,s:f}", "time", time_json(), "event", "request", "method",
                             bb_json_path_string(x->method), "path", bb_json_path_string(x->path), "status", x->status, "ms",
                             1e3 * (bb_monotonic_seconds() - x->begin));
    if (line && r) {
        json_object_set_new(line, "id", json_string(r->id));
        json_object_set_new(line, "prompt_bytes", json_integer(r->prompt_bytes));
        json_object_set_new(line, "bytes", json_integer(new_bytes));
        if (r->cancelled) json_object_set_new(line, "cancelled", json_true());
    }
    (void)bb_json_write(line, stderr);
}

/* ---- requests to the model ------------------------------------------------------------------------------------------------ */

void bb_http_wake(void *connection) { MHD_resume_connection(((bb_exchange *)connection)->connection); }

/* The library does not poll a suspended connection. Its client may have closed only its sending half, and then still waits for
 * the answer; a disconnected client looks the same until something is sent to it and its system answers that the connection is
 * gone. A stream sends its bytes; if nothing else is due before the end, an interim response is sent, which HTTP/1.1 clients
 * ignore (RFC 9110, 15.2). */
bool bb_http_has_left(bb_request *r) {
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct pollfd p = {.fd = r->socket, .events = POLLRDHUP};
    if (poll(&p, 1, 0) <= 0) return false;
    if (p.revents & (POLLHUP | POLLERR | POLLNVAL)) return true;
    if (!r->stream && !r->probed) (void)send(r->socket, interim, sizeof interim - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    r->probed = true;
    return false;
}

/* Called by the library for more bytes of a stream; returning 0 for a suspended connection makes it wait. */
static ssize_t read_events(void *user, uint64_t position, char *buffer, size_t max) {
    bb_exchange *x = user;
    bb_request *r = x->request;
    (void)position;
    if (x->pending_sent == x->pending_size) {
        free(x->pending);
        x->pending = NULL;
        x->pending_sent = x->pending_size = 0;
        bb_engine_lock(x->http->options.engine);
        FILE *memory = r->done_sent ? NULL : open_memstream(&x->pending, &x->pending_size);
        if (memory) {
            bb_answer_events(r, x->http->options.model_name, memory);
            fclose(memory);
        }
        bool wait = memory && x->pending_size == 0;
        if (wait) {
            r->suspended = true;
            MHD_suspend_connection(x->connection);
        }
        bb_engine_unlock(x->http->options.engine);
        if (wait) return 0;
        if (!memory) return r->done_sent ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t left = x->pending_size - x->pending_sent, n = left < max ? left : max;
    memcpy(buffer, x->pending + x->pending_sent, n);
    x->pending_sent += n;
    return (ssize_t)n;
}

/* Answers a submitted request, or suspends it until there is an answer. */
static enum MHD_Result answer_request(bb_exchange *x) {
    bb_request *r = x->request;
    bb_engine *engine = x->http->options.engine;
    bb_api_error error;
    if (r->stream) return bb_answer_reader(x, "text/event-stream", read_events);
    bb_engine_lock(engine);
    bool ended = r->running == 0;
    char *text = ended ? bb_answer_whole(r, x->http->options.model_name, &error) : NULL;
    if (!ended) {
        r->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    bb_engine_unlock(engine);
    if (!ended) return MHD_YES;
    return text ? bb_answer_text(x, 200, "application/json", text) : bb_answer_error(x, &error);
}

/* The library calls with a whole request until it is answered or suspended, and from the second call on it waits for nothing from the
 * client. A connection that is suspended in the first call is still read from when it goes on, and closed without an answer if its client
 * has ended its sending half (0.9.75). So the first call does nothing. */
static enum MHD_Result submit(bb_exchange *x, bb_request_kind kind) {
    bb_api_error error;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    bb_request *r;
    bb_api_limits limits = x->http->options.limits;
    if (!x->received) {
        x->received = true;
        return MHD_YES;
    }
    bb_engine_info model = bb_engine_get_info(x->http->options.engine);
    limits.context_length = model.trained_length;
    limits.chat_template = bb_chat_template_in_use(&x->http->options, &model);
    if (!bb_api_parse(kind, x->size ? x->body : "", x->size, &limits, &r, &error)) return bb_answer_error(x, &error);
    r->holders = 1;
    r->probed = !x->interim;
    r->connection = x;
    r->socket = info ? info->connect_fd : -1;
    bb_submitted submitted = bb_engine_submit(x->http->options.engine, r);
    if (submitted == BB_SUBMITTED) {
        x->request = r;
        return answer_request(x); /* only now can it be suspended and woken */
    }
    bb_request_free(r);
    if (submitted == BB_QUEUE_FULL)
        (void)bb_api_fail(&error, 429, NULL, "the queue is full: try again in a second");
    else if (submitted == BB_DRAINING)
        (void)bb_api_fail(&error, 503, NULL, "the server is shutting down");
    else
        (void)bb_api_fail(&error, 503, NULL, "the model failed and could not be restarted");
    return bb_answer_error(x, &error);
}

static enum MHD_Result on_completions(bb_exchange *x) { return submit(x, BB_REQUEST_COMPLETION); }
static enum MHD_Result on_chat(bb_exchange *x) { return submit(x, BB_REQUEST_CHAT); }
static enum MHD_Result on_embeddings(bb_exchange *x) { return submit(x, BB_REQUEST_EMBEDDING); }
static enum MHD_Result on_score(bb_exchange *x) { return submit(x, BB_REQUEST_SCORE); }

/* ---- routes ---------------------------------------------------------------------------------------------------------------- */

/* connect-src 'self': the page talks only to this server. Its only script and style are inline. */
static const char page_policy[] =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static enum MHD_Result on_page(bb_exchange *x) {
    return bb_answer_static(x, "text/html; charset=utf-8", page_policy, (const char *)bb_serve_page, bb_serve_page_size);
}

static enum MHD_Result on_root(bb_exchange *x) {
    return x->http->options.engine ? on_page(x) : bb_answer_elsewhere(x, "/runs");
}

typedef enum need { NOTHING, MODEL, RUNS } need;

typedef struct route {
    const char *method, *path; /* a path that ends in * is a prefix */
    enum MHD_Result (*answer)(bb_exchange *x);
    bool open; /* no key required */
    need need;
} route;

static const route routes[] = {
    {"GET", "/", on_root, true, NOTHING},
    {"GET", "/health", bb_status_health, true, NOTHING},
    {"GET", "/v1/health", bb_status_health, true, NOTHING},
    {"GET", "/metrics", bb_status_metrics, false, MODEL},
    {"GET", "/props", bb_status_props, false, MODEL},
    {"GET", "/describe", bb_status_describe, false, MODEL},
    {"GET", "/v1/models*", bb_status_models, false, MODEL},
    {"POST", "/v1/completions", on_completions, false, MODEL},
    {"POST", "/v1/chat/completions", on_chat, false, MODEL},
    {"POST", "/v1/embeddings", on_embeddings, false, MODEL},
    {"POST", "/v1/score", on_score, false, MODEL},
    {"POST", "/tokenize", bb_status_tokenize, false, MODEL},
    {"POST", "/detokenize", bb_status_detokenize, false, MODEL},
    {"GET", "/runs", bb_runs_page, true, RUNS},
    {"GET", "/runs/script.js", bb_runs_script, true, RUNS},
    {"GET", "/runs/list", bb_runs_list, false, RUNS},
    {"GET", "/runs/main", bb_runs_main, false, RUNS},
    {"GET", "/runs/events", bb_runs_events, false, RUNS},
};

static bool path_matches(const route *r, const char *path) {
    size_t n = strlen(r->path);
    if (r->path[n - 1] != '*') return strcmp(r->path, path) == 0;
    return strncmp(r->path, path, n - 1) == 0 && (path[n - 1] == '\0' || path[n - 1] == '/');
}

static bool has_what(const bb_http *http, need what) {
    return what == NOTHING || (what == MODEL ? http->options.engine != NULL : http->options.runs != NULL);
}

/* Returns NULL if there is none; *other_method: the path exists with another method. */
static const route *find_route(const bb_http *http, const char *method, const char *path, bool *other_method) {
    *other_method = false;
    if (strcmp(method, "HEAD") == 0) method = "GET";
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!path_matches(&routes[i], path) || !has_what(http, routes[i].need)) continue;
        if (strcmp(routes[i].method, method) == 0) return &routes[i];
        *other_method = true;
    }
    return NULL;
}

typedef struct framing {
    int lengths, encodings;
    bool unknown; /* a transfer encoding other than chunked */
} framing;

static enum MHD_Result count_framing(void *user, enum MHD_ValueKind kind, const char *key, const char *value) {
    framing *f = user;
    (void)kind;
    if (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        f->lengths++;
    } else if (strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        f->encodings++;
        f->unknown |= !value || strcasecmp(value, "chunked") != 0;
    }
    return MHD_YES;
}

/* The end of a body must be given exactly once, in a form that everybody reads the same way: otherwise a proxy may see two
 * requests where this server sees one, or vice versa (RFC 9112, section 11.2). */
static bool has_plain_framing(const bb_exchange *x) {
    framing f = {0};
    (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, count_framing, &f);
    return f.lengths + f.encodings <= 1 && !f.unknown;
}

static bool check(const bb_exchange *x, const route *r, bool other_method, bb_api_error *error) {
    const bb_http *http = x->http;
    const char *length = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (!has_plain_framing(x)) return bb_api_fail(error, 400, NULL, "the length of the body is missing or given twice");
    if (!r)
        return other_method ? bb_api_fail(error, 405, NULL, "%.16s is not allowed for %.200s", x->method, x->path)
                            : bb_api_fail(error, 404, NULL, "nothing found at %.200s", x->path);
    if (!bb_access_check(x, r->open, error)) return false;
    if (length && strtoull(length, NULL, 10) > http->options.max_body)
        return bb_api_fail(error, 413, NULL, "the body exceeds %zu bytes", http->options.max_body);
    return true;
}

/* ---- exchanges ------------------------------------------------------------------------------------------------------------- */

static bool has_ended_sending(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd p = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0;
}

/* The library sometimes misses the end of a client that ended its sending half during an exchange (0.9.75), and would wait for it to ask
 * for more until it has been idle for long. */
static void limit_idle_time(struct MHD_Connection *connection, unsigned seconds) {
    (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

static bb_exchange *begin_exchange(bb_http *http, struct MHD_Connection *connection, const char *method, const char *path,
                                   const char *version) {
    bb_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    atomic_fetch_add(&http->exchanges, 1);
    limit_idle_time(connection, IDLE_SECONDS);
    *x = (bb_exchange){.http = http,
                       .connection = connection,
                       .method = strdup(method),
                       .path = strdup(path),
                       .interim = strcmp(version, MHD_HTTP_VERSION_1_1) == 0,
                       .begin = bb_monotonic_seconds()};
    return x;
}

static void end_exchange(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code) {
    bb_exchange *x = *state;
    (void)user;
    if (!x) return;
    if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK && has_ended_sending(connection)) limit_idle_time(connection, 1);
    if (x->request) bb_engine_lock(x->http->options.engine);
    log_exchange(x);
    if (x->request) {
        bb_engine_unlock(x->http->options.engine);
        bb_engine_release(x->http->options.engine, x->request);
    }
    bb_runs_leave(x);
    atomic_fetch_sub(&x->http->exchanges, 1);
    free(x->pending);
    free(x->body);
    free(x->method);
    free(x->path);
    free(x);
    *state = NULL;
}

static bool keep_body(bb_exchange *x, const char *data, size_t size) {
    if (x->size + size > x->http->options.max_body) return false;
    if (x->size + size > x->capacity) {
        size_t capacity = 2 * (x->size + size) + 1024;
        char *grown = realloc(x->body, capacity);
        if (!grown) return false;
        x->body = grown;
        x->capacity = capacity;
    }
    memcpy(x->body + x->size, data, size);
    x->size += size;
    return true;
}

static enum MHD_Result answer_preflight(bb_exchange *x) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!response) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, x->http->options.cors_origin);
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type");
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_MAX_AGE, "600");
    x->status = 204;
    enum MHD_Result result = MHD_queue_response(x->connection, 204, response);
    MHD_destroy_response(response);
    return result;
}

/* Called with the headers, with each part of the body, at its end, and again when a suspended connection is resumed. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *size, void **state) {
    bb_http *http = user;
    bb_exchange *x = *state;
    bb_api_error error;
    bool other_method;
    if (!x) {
        *state = x = begin_exchange(http, connection, method, path, version);
        if (!x || !x->method || !x->path) return MHD_NO;
        if (strcmp(method, "OPTIONS") == 0 && http->options.cors_origin) return MHD_YES;
        const route *r = find_route(http, method, path, &other_method);
        return check(x, r, other_method, &error) ? MHD_YES : bb_answer_error(x, &error);
    }
    if (x->status) return MHD_YES; /* answered before the body arrived */
    if (*size) {
        bool kept = keep_body(x, data, *size);
        *size = 0;
        if (kept) return MHD_YES;
        x->size = http->options.max_body + 1; /* the library requires that the answer follows the end of the body */
        return MHD_YES;
    }
    if (x->request) return answer_request(x);
    if (strcmp(method, "OPTIONS") == 0) return answer_preflight(x);
    if (x->size > http->options.max_body) {
        (void)bb_api_fail(&error, 413, NULL, "the body exceeds %zu bytes", http->options.max_body);
        return bb_answer_error(x, &error);
    }
    const route *r = find_route(http, method, path, &other_method);
    return r ? r->answer(x) : MHD_NO;
}

/* ---- the server ------------------------------------------------------------------------------------------------------------ */

/* Opens a socket that listens on the first usable address of host and port. */
static int listen_at(const char *host, int port, bb_error *err) {
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int fd = -1, failure;
    snprintf(service, sizeof service, "%d", port);
    failure = getaddrinfo(host, service, &hints, &found);
    if (failure != 0) {
        snprintf(err->message, sizeof err->message, "--host %.200s: %s", host, gai_strerror(failure));
        err->code = BB_ERR_ARGUMENT;
        return -1;
    }
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        int one = 1;
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) continue;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 512) == 0) break;
        failure = errno;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd >= 0) return fd;
    snprintf(err->message, sizeof err->message, "cannot listen on %.200s port %d: %s", host, port, strerror(failure));
    err->code = BB_ERR_IO;
    return -1;
}

static int port_of(int fd) {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address = {.six = {0}};
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size) != 0) return 0;
    int port = address.any.sa_family == AF_INET6 ? address.six.sin6_port : address.four.sin_port;
    return ntohs((uint16_t)port);
}

static void no_log(void *user, const char *format, va_list args) {
    (void)user;
    (void)format;
    (void)args;
}

bb_status bb_http_open(const bb_http_options *options, bb_http **out, bb_error *err) {
    bb_http *http = calloc(1, sizeof *http);
    *out = NULL;
    if (!http) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code = BB_ERR_MEMORY;
    }
    http->options = *options;
    int fd = listen_at(options->host, options->port, err);
    if (fd < 0) {
        free(http);
        return err->code;
    }
    http->port = port_of(fd);
    /* the parser's own messages for malformed requests do not help an administrator */
    http->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                                    on_request, http, MHD_OPTION_EXTERNAL_LOGGER, no_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                                    MHD_OPTION_NOTIFY_COMPLETED, end_exchange, NULL, MHD_OPTION_CONNECTION_TIMEOUT,
                                    (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
                                    MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (http->daemon) {
        *out = http;
        return BB_OK;
    }
    close(fd);
    free(http);
    snprintf(err->message, sizeof err->message, "libmicrohttpd cannot start: %s", strerror(errno));
    return err->code = BB_ERR_IO;
}

void bb_http_quiesce(bb_http *http) {
    MHD_socket fd = MHD_quiesce_daemon(http->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
}

void bb_http_finish(bb_http *http) {
    enum { SECONDS = 5 };
    bb_runs_stop(http->options.runs);
    for (int i = 0; i < 100 * SECONDS && atomic_load(&http->exchanges) > 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

void bb_http_close(bb_http *http) {
    if (!http) return;
    MHD_stop_daemon(http->daemon);
    free(http);
}

int bb_http_port(const bb_http *http) { return http->port; }
