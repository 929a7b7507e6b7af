// SPDX-License-Identifier: MIT
#include "runs.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "../json_out.h"
#include "../reporting/page.h"
#include "page.h"

enum { MAX_SHOWN = 32, QUIET_SECONDS = 15 };

struct bb_runs {
    char *dir;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stop;
    uint64_t version; /* version of the directories' content */
    bb_exchange *waiting;
};

/* ---- the directories ------------------------------------------------------------------------------------------------------- */

static bool metrics_of(const char *dir, const char *name, struct stat *st) {
    char path[4096];
    return name[0] != '.' && snprintf(path, sizeof path, "%s/%s/metrics.jsonl", dir, name) < (int)sizeof path &&
           stat(path, st) == 0 && S_ISREG(st->st_mode);
}

/* Returns a number that changes when a run appears, continues or disappears. */
static uint64_t version_of(const char *dir) {
    uint64_t sum = 0;
    struct stat st;
    DIR *d = opendir(dir);
    for (const struct dirent *entry; d && (entry = readdir(d));)
        if (metrics_of(dir, entry->d_name, &st))
            sum += ((uint64_t)st.st_size + 1) * 1000003 + (uint64_t)st.st_mtim.tv_sec * 31 + (uint64_t)st.st_mtim.tv_nsec +
                   st.st_ino;
    if (d) closedir(d);
    return sum;
}

/* Call with the lock held. */
static void wake_all(bb_runs *runs) {
    for (bb_exchange *x = runs->waiting; x; x = x->next_waiting) MHD_resume_connection(x->connection);
    runs->waiting = NULL;
}

/* Checks once a second. Occasionally wakes all connections, so that disconnected clients are detected. */
static void *watch(void *user) {
    bb_runs *runs = user;
    pthread_mutex_lock(&runs->lock);
    for (int quiet = 0; !runs->stop; quiet++) {
        struct timespec until;
        pthread_mutex_unlock(&runs->lock);
        uint64_t version = version_of(runs->dir);
        pthread_mutex_lock(&runs->lock);
        if (version != runs->version || quiet >= QUIET_SECONDS) {
            runs->version = version;
            quiet = 0;
            wake_all(runs);
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        if (!runs->stop) pthread_cond_timedwait(&runs->stopped, &runs->lock, &until);
    }
    wake_all(runs);
    pthread_mutex_unlock(&runs->lock);
    return NULL;
}

bb_runs *bb_runs_open(const char *dir) {
    bb_runs *runs = calloc(1, sizeof *runs);
    if (!runs) return NULL;
    runs->dir = strdup(dir);
    pthread_mutex_init(&runs->lock, NULL);
    pthread_cond_init(&runs->stopped, NULL);
    runs->version = version_of(dir);
    if (runs->dir && pthread_create(&runs->thread, NULL, watch, runs) == 0) return runs;
    free(runs->dir);
    free(runs);
    return NULL;
}

void bb_runs_stop(bb_runs *runs) {
    if (!runs || runs->stop) return;
    pthread_mutex_lock(&runs->lock);
    runs->stop = true;
    pthread_cond_signal(&runs->stopped);
    pthread_mutex_unlock(&runs->lock);
    pthread_join(runs->thread, NULL);
}

void bb_runs_close(bb_runs *runs) {
    if (!runs) return;
    bb_runs_stop(runs);
    pthread_mutex_destroy(&runs->lock);
    pthread_cond_destroy(&runs->stopped);
    free(runs->dir);
    free(runs);
}

void bb_runs_leave(bb_exchange *x) {
    bb_runs *runs = x->http->options.runs;
    if (!runs) return;
    pthread_mutex_lock(&runs->lock);
    for (bb_exchange **at = &runs->waiting; *at; at = &(*at)->next_waiting)
        if (*at == x) {
            *at = x->next_waiting;
            break;
        }
    pthread_mutex_unlock(&runs->lock);
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

enum MHD_Result bb_runs_script(bb_exchange *x) {
    return bb_answer_static(x, "text/javascript; charset=utf-8", NULL, (const char *)bb_serve_runs, bb_serve_runs_size);
}

/* Only the script of bb_runs_script may run: plots and samples could not run one even if a text in them were not escaped. */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

enum MHD_Result bb_runs_page(bb_exchange *x) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return MHD_NO;
    const bb_page_options options = {.x = BB_AXIS_STEP};
    fputs(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>Runs</title>"
        "<link rel=\"icon\" href=\"data:,\"><style>",
        out);
    bb_page_style(out);
    fputs("[hidden]{display:none}#runs{display:flex;flex-wrap:wrap;gap:2px 16px;margin:8px 0}"
          "</style></head><body><h1>Runs</h1>\n<div id=\"locked\" hidden><label for=\"key\">This server requires a key</label> "
          "<input id=\"key\" type=\"password\" autocomplete=\"off\"> <button id=\"unlock\">Use it</button></div>\n"
          "<fieldset><legend>Shown together</legend><div id=\"runs\"></div></fieldset>\n",
          out);
    bb_page_controls(out, &options);
    fputs("<label for=\"smooth\">smoothing</label><input id=\"smooth\" type=\"range\" min=\"0\" max=\"0.99\" step=\"0.01\" "
          "value=\"0.9\"> <span id=\"live\" role=\"status\"></span>\n<main></main><script "
          "src=\"runs/script.js\"></script></body></html>\n",
          out);
    if (fclose(out) != 0) {
        free(text);
        return MHD_NO;
    }
    return bb_answer_page(x, policy, text);
}

enum MHD_Result bb_runs_list(bb_exchange *x) {
    const bb_runs *runs = x->http->options.runs;
    json_t *list = json_array();
    struct stat st;
    DIR *d = opendir(runs->dir);
    time_t now = time(NULL);
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        if (!metrics_of(runs->dir, entry->d_name, &st)) continue;
        json_t *run = json_pack("{s:s,s:I}", "name", entry->d_name, "seconds_since", (json_int_t)(now - st.st_mtime));
        if (!run) continue; /* a name that is not UTF-8 */
        size_t at = 0;      /* latest first */
        while (at < json_array_size(list) &&
               json_integer_value(json_object_get(json_array_get(list, at), "seconds_since")) < (json_int_t)(now - st.st_mtime))
            at++;
        json_array_insert_new(list, at, run);
    }
    if (d) closedir(d);
    return bb_answer_json(x, 200, list);
}

typedef struct shown {
    const char *dir;
    bb_run_log logs[MAX_SHOWN];
    int count;
} shown;

/* A name has no slash and does not begin with a dot, so the run is inside the directory. */
static enum MHD_Result read_run(void *user, enum MHD_ValueKind kind, const char *key, const char *value) {
    shown *s = user;
    char path[4096];
    struct stat st;
    bb_error unsaid;
    (void)kind;
    if (strcmp(key, "run") != 0 || !value || strchr(value, '/') || s->count == MAX_SHOWN || !metrics_of(s->dir, value, &st) ||
        snprintf(path, sizeof path, "%s/%s", s->dir, value) >= (int)sizeof path)
        return MHD_YES;
    if (bb_run_log_read(path, &s->logs[s->count], &unsaid) == BB_OK) s->count++;
    return MHD_YES;
}

enum MHD_Result bb_runs_main(bb_exchange *x) {
    const char *smooth = MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, "smooth");
    double smoothing = smooth ? strtod(smooth, NULL) : 0.9;
    const bb_page_options options = {.smoothing = smoothing >= 0 && smoothing < 1 ? smoothing : 0, .no_weights = true};
    char *text = NULL;
    size_t size = 0;
    shown *s = calloc(1, sizeof *s);
    FILE *out = s ? open_memstream(&text, &size) : NULL;
    if (out) {
        s->dir = x->http->options.runs->dir;
        (void)MHD_get_connection_values(x->connection, MHD_GET_ARGUMENT_KIND, read_run, s);
        bb_page_main(out, s->logs, s->count, &options);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
        for (int i = 0; i < s->count; i++) bb_run_log_free(&s->logs[i]);
    }
    free(s);
    return bb_answer_text(x, 200, "text/html; charset=utf-8", text);
}

/* Sends an event for each change, and one at the start; occasionally a comment. */
static ssize_t read_changes(void *user, uint64_t position, char *buffer, size_t max) {
    bb_exchange *x = user;
    bb_runs *runs = x->http->options.runs;
    static const char changed[] = "data: {\"event\": \"changed\"}\n\n", comment[] = ":\n\n";
    bb_bytes event = {NULL, 0};
    (void)position;
    pthread_mutex_lock(&runs->lock);
    bool stop = runs->stop, wait = false;
    if (!stop && x->told && x->told_version == runs->version && x->told_waited) {
        event = (bb_bytes){(const uint8_t *)comment, sizeof comment - 1};
        x->told_waited = false;
    } else if (!stop && (!x->told || x->told_version != runs->version)) {
        event = (bb_bytes){(const uint8_t *)changed, sizeof changed - 1};
        x->told = true;
        x->told_waited = false;
        x->told_version = runs->version;
    } else if (!stop) {
        wait = x->told_waited = true;
        x->next_waiting = runs->waiting;
        runs->waiting = x;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&runs->lock);
    if (stop) return MHD_CONTENT_READER_END_OF_STREAM;
    if (wait || event.size > max) return 0;
    memcpy(buffer, event.data, event.size);
    return (ssize_t)event.size;
}

enum MHD_Result bb_runs_events(bb_exchange *x) { return bb_answer_reader(x, "text/event-stream", read_changes); }
