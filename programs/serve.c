// SPDX-License-Identifier: MIT
/* bitbyte serve: a model over HTTP, with OpenAI's API and a page. */
#include "chat_template.h"
#include "commands.h"
#include "common.h"

#ifdef BB_HAVE_MICROHTTPD
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "progress.h"
#include "serving/http.h"
#include "serving/runs.h"
#endif

typedef struct serve_args {
    bb_device_args device;
    bb_import_args import;
    const char *model, *runs, *name, *host, *api_key, *api_key_file, *cors_origin, *chat_template;
    bb_cli_list allowed_hosts;
    int port, sequences, queue, cache_mb;
    int64_t max_new_bytes, max_body_kb;
    double timeout, drain_seconds;
    bool quiet;
} serve_args;

static const bb_cli_option options[] = {
    {.help = "Model and address"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, model),
     .value = "MODEL",
     .help = "model file of any format, Hugging Face folder, run directory (its latest valid checkpoint), or RUN/best; SIGHUP "
             "loads it again",
     .position = 1},
    {.name = "runs",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, runs),
     .value = "DIR",
     .help = "folder of run directories: /runs plots them together and updates during the runs; with or without a MODEL"},
    {.name = "name",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, name),
     .value = "TEXT",
     .help = "name of the model in the API",
     .default_text = "the last part of its path"},
    {.group = &bb_import_group, .offset = offsetof(serve_args, import)},
    {.name = "host",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, host),
     .value = "ADDRESS",
     .help = "address to listen on; 0.0.0.0 or :: allows other machines: use keys, and TLS with a proxy"},
    {.name = "port",
     .type = BB_CLI_INT,
     .offset = offsetof(serve_args, port),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 65535),
     .help = "port to listen on; 0: any free port, which is printed"},
    {.help = "Access"},
    {.name = "api_key_file",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, api_key_file),
     .value = "FILE",
     .help = "file with keys, one per line; clients send one as a bearer token",
     .default_text = "the key in the environment variable BITBYTE_API_KEY; without keys everybody has access"},
    {.name = "api_key",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, api_key),
     .value = "KEY",
     .help = "a key; other users of this machine can see it in the list of processes",
     .default_text = ""},
    {.name = "allowed_host",
     .type = BB_CLI_LIST,
     .one_each = true,
     .offset = offsetof(serve_args, allowed_hosts),
     .value = "NAME",
     .help = "a name that clients use for this server, besides addresses, localhost and --host, as passed on by a proxy; may "
             "be repeated; *: any. Requests for other names are refused, because a page of any site can have its name resolve "
             "to this machine"},
    {.name = "cors_origin",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, cors_origin),
     .value = "ORIGIN",
     .help = "a site whose pages may use this server, e.g. https://example.org, or * for all",
     .default_text = "none"},
    {.help = "Load"},
    {.name = "sequences",
     .type = BB_CLI_INT,
     .offset = offsetof(serve_args, sequences),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 256),
     .help = "maximum number of texts generated at once"},
    {.name = "queue",
     .type = BB_CLI_INT,
     .offset = offsetof(serve_args, queue),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 100000),
     .help = "maximum number of waiting texts; more are refused with status 429"},
    {.name = "cache_mb",
     .type = BB_CLI_INT,
     .offset = offsetof(serve_args, cache_mb),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "memory for KV caches, in 10^6 bytes; texts that do not fit wait; 0: no limit"},
    {.name = "timeout",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(serve_args, timeout),
     .value = "SECONDS",
     .range = BB_CLI_AT_LEAST(0),
     .help = "maximum time from when all of a request has arrived to the last byte of its answer; 0: no limit"},
    {.name = "max_new_bytes",
     .type = BB_CLI_INT64,
     .offset = offsetof(serve_args, max_new_bytes),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 1e9),
     .help = "largest max_tokens of a request; a token is a byte"},
    {.name = "max_body_kb",
     .type = BB_CLI_INT64,
     .offset = offsetof(serve_args, max_body_kb),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 1e6),
     .help = "largest request, in 1024 bytes"},
    {.name = "drain_seconds",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(serve_args, drain_seconds),
     .value = "SECONDS",
     .range = BB_CLI_FROM_TO(0, 1e6),
     .help = "after SIGTERM or Ctrl-C, how long running requests may take to finish; new requests are refused meanwhile"},
    {.help = "Output and machine"},
    {.name = "chat_template",
     .type = BB_CLI_STRING,
     .offset = offsetof(serve_args, chat_template),
     .value = "FILE|TEXT",
     .help = BB_CHAT_TEMPLATE_HELP,
     .default_text = "the model's, else {role}: {content}\\n"},
    {.name = "quiet",
     .type = BB_CLI_FLAG,
     .offset = offsetof(serve_args, quiet),
     .help = "do not log requests as JSON lines on standard error"},
    {.group = &bb_device_group, .offset = offsetof(serve_args, device)},
};

static const bb_cli_command command = {
    .name = "serve",
    .summary = "serves a model over HTTP: a page for generating text, and OpenAI's API (/v1/completions, /v1/chat/completions, "
               "/v1/embeddings, /v1/models), /v1/score, /metrics for Prometheus, /health. The same request with the same seed "
               "gets the same bytes, regardless of other requests.",
    .usage = "[MODEL] [--runs DIR] [--host ADDRESS] [--port N] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte serve runs/small\n"
                "  bitbyte serve --runs runs\n"
                "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once\", \"max_tokens\": 80, \"seed\": 1}'\n"
                "  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python3 my_program.py\n"
                "  kill -HUP PID    # loads the model file again; streams continue\n",
};

#ifdef BB_HAVE_MICROHTTPD

enum { MAX_KEYS = 256, MAX_CHOICES = 64 };

typedef struct server {
    const serve_args *args;
    bb_device *device;
    char *chat_template; /* from the option; NULL: the model's */
    const char *keys[MAX_KEYS];
    int key_count;
    char *key_text;
} server;

/* Checks the model's template, if it is used. */
static bb_status check_chat_template(const server *s, const bb_found_model *found, bb_error *err) {
    const char *text = bb_model_chat_template(found->model);
    bb_error wrong;
    if (s->chat_template || !text || bb_chat_template_check(text, &wrong) == BB_OK) return BB_OK;
    snprintf(err->message, sizeof err->message, "%.500s: %.400s; use --chat_template to override it", found->path,
             wrong.message);
    return err->code = BB_ERR_FORMAT;
}

static bb_status load_model(void *user, bb_engine_model *out, bb_error *err) {
    const server *s = user;
    bb_found_model found;
    bb_status status = bb_model_open(s->device, s->args->model, &s->args->import, &found, err);
    if (status != BB_OK) return status;
    if ((status = check_chat_template(s, &found, err)) != BB_OK) {
        bb_model_free(found.model);
        return status;
    }
    const bb_import_options import = {.struct_size = sizeof(bb_import_options), .n_head = s->args->import.n_head};
    bb_error unsaid;
    if (bb_describe_file(found.path, &import, &out->description, &unsaid) != BB_OK) out->description = NULL;
    snprintf(out->path, sizeof out->path, "%s", found.path);
    out->model = found.model;
    return BB_OK;
}

static bool add_key(server *s, const char *key) {
    if (s->key_count == MAX_KEYS) return false;
    s->keys[s->key_count++] = key;
    return true;
}

static int read_keys(server *s) {
    const serve_args *args = s->args;
    const char *environment = getenv("BITBYTE_API_KEY");
    size_t size;
    bb_error err;
    if (environment && environment[0]) (void)add_key(s, environment);
    /* a variable of a script that is not set must not open the server */
    if (args->api_key && !args->api_key[0])
        return bb_cli_usage_error(&command, "--api_key: the key is empty; without this option, everybody has access");
    if (args->api_key) (void)add_key(s, args->api_key);
    if (!args->api_key_file) return BB_CLI_CONTINUE;
    if (bb_read_text(args->api_key_file, NULL, &s->key_text, &size, &err) != BB_OK) return bb_cli_fail(&command, &err);
    int before = s->key_count;
    char *rest = NULL;
    for (char *key = strtok_r(s->key_text, " \r\n\t", &rest); key; key = strtok_r(NULL, " \r\n\t", &rest))
        if (!add_key(s, key)) return bb_cli_failure(&command, "%s: more than %d keys", args->api_key_file, MAX_KEYS);
    /* a key file emptied by mistake must not open the server */
    if (s->key_count == before) return bb_cli_failure(&command, "%s: contains no key", args->api_key_file);
    return BB_CLI_CONTINUE;
}

/* Copies the last part of a path, without slashes after it. */
static void copy_base_name(const char *path, char *out, size_t size) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    if (begin == end) begin = 0; /* the root */
    snprintf(out, size, "%.*s", (int)(end - begin), path + begin);
}

/* More than there is room for would be told to try again forever. */
static int most_texts(const serve_args *args) {
    int room = args->sequences + args->queue;
    return room < MAX_CHOICES ? room : MAX_CHOICES;
}

static bool is_loopback(const char *host) {
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

/* Waits for SIGTERM or SIGINT, which are blocked in all threads. */
static void wait_for_signals(const sigset_t *signals, bb_engine *engine) {
    for (int number; sigwait(signals, &number) == 0;) {
        if (number != SIGHUP) return;
        if (engine) bb_engine_reload(engine);
    }
}

static int run_server(server *s, const sigset_t *signals) {
    const serve_args *args = s->args;
    bb_error err;
    bb_engine *engine = NULL;
    bb_http *http = NULL;
    const bb_engine_options engine_options = {.load = load_model,
                                              .wake = bb_http_wake,
                                              .has_left = bb_http_has_left,
                                              .log = bb_http_log,
                                              .user = s,
                                              .sequences = args->sequences,
                                              .queue = args->queue,
                                              .cache_bytes = (uint64_t)args->cache_mb * 1000000,
                                              .timeout = args->timeout};
    bb_status status = BB_OK;
    char base_name[256] = "";
    if (args->model) copy_base_name(args->model, base_name, sizeof base_name);
    if (args->model) status = bb_device_args_open(&args->device, NULL, &s->device, &err);
    if (status == BB_OK && args->model) status = bb_engine_open(&engine_options, &engine, &err);
    bb_runs *runs = status == BB_OK && args->runs ? bb_runs_open(args->runs) : NULL;
    if (status == BB_OK && args->runs && !runs) {
        snprintf(err.message, sizeof err.message, "--runs: out of memory");
        status = err.code = BB_ERR_MEMORY;
    }
    const bb_http_options http_options = {
        .host = args->host,
        .port = args->port,
        .engine = engine,
        .model_name = args->name    ? args->name
                      : args->model ? base_name
                                    : "runs",
        .runs = runs,
        .keys = s->keys,
        .key_count = s->key_count,
        .hosts = args->allowed_hosts.items,
        .host_count = args->allowed_hosts.count,
        .cors_origin = args->cors_origin,
        .limits = {.max_new_bytes = args->max_new_bytes, .max_choices = most_texts(args), .chat_template = s->chat_template},
        .sequences = args->sequences,
        .max_body = (size_t)args->max_body_kb * 1024,
        .quiet = args->quiet};
    if (status == BB_OK) status = bb_http_open(&http_options, &http, &err);
    if (status == BB_OK) {
        bool six = strchr(args->host, ':') != NULL;
        printf("%s: http://%s%s%s:%d\n", http_options.model_name, six ? "[" : "", args->host, six ? "]" : "",
               bb_http_port(http));
        fflush(stdout);
        if (!is_loopback(args->host) && s->key_count == 0)
            fprintf(stderr, "bitbyte serve: note: everybody who can reach %s can use this server: see --api_key_file\n",
                    args->host);
        wait_for_signals(signals, engine);
        bb_http_quiesce(http);
        bb_http_log(NULL, "draining", "");
        bool whole = !engine || bb_engine_drain(engine, args->drain_seconds);
        bb_http_finish(http);
        bb_http_log(NULL, whole ? "stopped" : "stopped_early", "");
    }
    bb_http_close(http);
    bb_runs_close(runs);
    bb_engine_close(engine);
    bb_device_close(s->device);
    return status == BB_OK ? BB_EXIT_OK : bb_cli_fail(&command, &err);
}

static void note_unused(const bb_cli *cli, const serve_args *args) {
    static const char *const of_model[] = {"n_head",        "sequences",     "queue",         "cache_mb", "timeout",
                                           "max_new_bytes", "drain_seconds", "chat_template", "threads",  "device"};
    if (args->model) bb_device_args_notes(cli, &args->device);
    for (size_t i = 0; !args->model && i < sizeof of_model / sizeof *of_model; i++)
        bb_cli_unused(cli, of_model[i], "no MODEL is served");
}

static int serve(const bb_cli *cli, const serve_args *args) {
    server s = {.args = args};
    sigset_t signals;
    struct stat st;
    bb_error err;
    if (!args->model && !args->runs) return bb_cli_usage_error(&command, "MODEL is missing: bitbyte serve %s", command.usage);
    if (args->runs && (stat(args->runs, &st) != 0 || !S_ISDIR(st.st_mode)))
        return bb_cli_failure(&command, "--runs %s: expected a folder of run directories", args->runs);
    note_unused(cli, args);
    if (args->chat_template && bb_chat_template_read(args->chat_template, &s.chat_template, &err) != BB_OK)
        return bb_cli_fail(&command, &err);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    int exit_status = read_keys(&s);
    if (exit_status == BB_CLI_CONTINUE) exit_status = run_server(&s, &signals);
    bb_string_free(s.key_text);
    free(s.chat_template);
    return exit_status;
}

#else

static int serve(const bb_cli *cli, const serve_args *args) {
    (void)cli;
    (void)args;
    return bb_cli_failure(&command, "this build has no HTTP server: install libmicrohttpd-dev (Debian) and rebuild");
}

#endif

int bb_cmd_serve(int argc, char **argv) {
    serve_args args = {.host = "127.0.0.1",
                       .port = 8080,
                       .sequences = 16,
                       .queue = 64,
                       .timeout = 600,
                       .max_new_bytes = 65536,
                       .max_body_kb = 4096,
                       .drain_seconds = 30};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = serve(&cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}
