// SPDX-License-Identifier: MIT
#include "engine.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../progress.h"

/* A loaded model. The first in the list is the current one; others are freed when their last text ends. */
typedef struct generation {
    bb_engine_model loaded;
    bb_batch *batch;
    int running; /* number of its texts in the batch */
    struct generation *next;
} generation;

struct bb_engine {
    bb_engine_options options;
    pthread_t thread, loader;
    bool loading;         /* `loader` must be joined */
    pthread_mutex_t lock; /* protects everything below, and the outputs of requests */
    pthread_cond_t news, idle;
    bb_request *incoming, *last_incoming; /* requests that are not in the batch yet */
    bb_request *requests;                 /* requests in the batch: head of a ring */
    int texts;                            /* unfinished texts of both lists */
    bool quit, draining, cut;
    generation *generations, *loaded; /* loaded: the loader's result, about to become the first */
    bb_engine_counts counts;
    bb_engine_info info;
};

void bb_engine_lock(bb_engine *e) { pthread_mutex_lock(&e->lock); }
void bb_engine_unlock(bb_engine *e) { pthread_mutex_unlock(&e->lock); }

/* ---- generations -------------------------------------------------------------------------------------------------------- */

static bb_status open_batch(const bb_engine *e, bb_model *model, bb_batch **out, bb_error *err) {
    bb_batch_options options;
    bb_batch_options_default(&options);
    options.max_sequences = e->options.sequences;
    options.cache_bytes = e->options.cache_bytes;
    return bb_batch_open(model, &options, out, err);
}

static void close_generation(generation *g) {
    if (!g) return;
    bb_batch_close(g->batch);
    bb_model_free(g->loaded.model);
    bb_string_free(g->loaded.description);
    free(g);
}

static bb_status load_generation(bb_engine *e, generation **out, bb_error *err) {
    generation *g = calloc(1, sizeof *g);
    bb_status status = g ? e->options.load(e->options.user, &g->loaded, err) : BB_ERR_MEMORY;
    if (!g) snprintf(err->message, sizeof err->message, "out of memory");
    if (status == BB_OK) status = open_batch(e, g->loaded.model, &g->batch, err);
    if (status != BB_OK) {
        close_generation(g);
        return err->code = status;
    }
    *out = g;
    return BB_OK;
}

static void describe(bb_engine *e, const generation *g) {
    const bb_model *model = g->loaded.model;
    e->info = (bb_engine_info){.config = *bb_model_config(model),
                               .parameters = bb_model_parameters(model),
                               .trained_length = bb_model_trained_length(model),
                               .loaded = (int64_t)time(NULL)};
    const char *chat_template = bb_model_chat_template(model);
    snprintf(e->info.chat_template, sizeof e->info.chat_template, "%s", chat_template ? chat_template : "");
    snprintf(e->info.path, sizeof e->info.path, "%s", g->loaded.path);
}

static void *load_in_thread(void *user) {
    bb_engine *e = user;
    generation *g = NULL;
    bb_error err;
    bb_status status = load_generation(e, &g, &err);
    if (status != BB_OK) e->options.log(e->options.user, "reload_failed", err.message);
    bb_engine_lock(e);
    if (e->loaded) close_generation(e->loaded);
    e->loaded = g;
    pthread_cond_signal(&e->news);
    bb_engine_unlock(e);
    return NULL;
}

/* On the engine's thread, locked: installs a new model, and frees old ones without texts. */
static void change_generations(bb_engine *e) {
    if (e->loaded) {
        e->loaded->next = e->generations;
        e->generations = e->loaded;
        e->loaded = NULL;
        describe(e, e->generations);
        e->counts.reloads++;
        e->counts.failed_now = false;
        e->options.log(e->options.user, "reloaded", "");
    }
    for (generation **at = &e->generations->next; *at;) {
        generation *g = *at;
        if (g->running > 0) {
            at = &g->next;
            continue;
        }
        *at = g->next;
        close_generation(g);
    }
}

/* ---- requests, with the lock held ----------------------------------------------------------------------------------------- */

static void let_go(bb_request *r) {
    if (--r->holders == 0) bb_request_free(r);
}

static void wake(bb_engine *e, bb_request *r) {
    if (!r->suspended || !r->connection) return;
    r->suspended = false;
    e->options.wake(r->connection);
}

static void leave_list(bb_engine *e, bb_request *r) {
    if (r->previous) r->previous->next = r->next;
    if (r->next) r->next->previous = r->previous;
    if (e->requests == r) e->requests = r->next;
    r->next = r->previous = NULL;
}

/* Ends a choice that was started or not. The last choice of a request ends the request. */
static void end_choice(bb_engine *e, bb_choice *c) {
    bb_request *r = c->request;
    c->ended = true;
    e->texts--;
    if (--r->running > 0) {
        if (r->stream) wake(e, r);
        return;
    }
    wake(e, r);
    leave_list(e, r);
    if (e->texts == 0) pthread_cond_broadcast(&e->idle);
    let_go(r);
}

/* ---- callbacks of the batch ------------------------------------------------------------------------------------------------ */

static bool grow(bb_choice *c, int top) {
    size_t capacity = c->capacity ? 2 * c->capacity : 128;
    bb_token *tokens = realloc(c->tokens, capacity * sizeof *tokens);
    if (tokens) c->tokens = tokens;
    bb_candidate *candidates = top > 0 ? realloc(c->top, capacity * (size_t)top * sizeof *candidates) : NULL;
    if (candidates) c->top = candidates;
    if (!tokens || (top > 0 && !candidates)) return false;
    c->capacity = capacity;
    return true;
}

static bool on_byte(void *user, const bb_batch_byte *byte) {
    bb_choice *c = user;
    bb_engine *e = c->engine;
    bb_request *r = c->request;
    bb_engine_lock(e);
    bool good = !r->cancelled && (c->count < c->capacity || grow(c, r->top));
    if (good) {
        int count = byte->top_count < r->top ? byte->top_count : r->top;
        if (count > 0) memcpy(c->top + c->count * (size_t)r->top, byte->top, (size_t)count * sizeof *byte->top);
        c->tokens[c->count++] =
            (bb_token){.byte = byte->byte, .prompt = byte->prompt, .top_count = count, .logprob = byte->logprob};
        if (!byte->prompt) e->counts.new_bytes++;
        if (r->stream) wake(e, r);
    }
    bb_engine_unlock(e);
    return good;
}

static bool on_read(void *user, int64_t done, int64_t total) {
    const bb_choice *c = user;
    (void)done;
    (void)total;
    bb_engine_lock(c->engine);
    bool good = !c->request->cancelled;
    bb_engine_unlock(c->engine);
    return good;
}

static void count_end(bb_engine *e, const bb_batch_end *end) {
    e->counts.prompt_bytes += end->metrics.prompt_bytes;
    e->counts.shared_bytes += end->shared_bytes;
    e->counts.prompt_seconds += end->metrics.prompt_seconds;
    e->counts.new_seconds += end->metrics.decode_seconds;
}

static void on_end(void *user, const bb_batch_end *end) {
    bb_choice *c = user;
    bb_engine *e = c->engine;
    bb_engine_lock(e);
    c->finish = end->finish;
    c->metrics = end->metrics;
    if (end->error) snprintf(c->error, sizeof c->error, "%.255s", end->error->message);
    if (end->embedding) {
        c->embedding_size = (size_t)bb_model_config(((generation *)c->generation)->loaded.model)->d_model;
        size_t bytes = c->embedding_size * sizeof(float);
        c->embedding = malloc(bytes);
        if (c->embedding)
            memcpy(c->embedding, end->embedding, bytes);
        else
            snprintf(c->error, sizeof c->error, "out of memory");
    }
    count_end(e, end);
    ((generation *)c->generation)->running--;
    end_choice(e, c);
    bb_engine_unlock(e);
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------ */

/* Without the lock. Returns false if it could not be added; the reason is in the choice. */
static bool add_choice(bb_engine *e, generation *g, bb_choice *c) {
    const bb_request *r = c->request;
    bb_generate_options options = r->options;
    options.seed = c->seed;
    bb_error err;
    c->engine = e;
    const bb_batch_request request = {.struct_size = sizeof(bb_batch_request),
                                      .prompt = c->prompt,
                                      .options = &options,
                                      .prompt_logprobs = r->kind == BB_REQUEST_SCORE || (r->echo && r->logprobs),
                                      .embed = r->kind == BB_REQUEST_EMBEDDING,
                                      .top = r->top,
                                      .on_byte = on_byte,
                                      .on_read = on_read,
                                      .on_end = on_end,
                                      .user = c};
    if (bb_batch_add(g->batch, &request, &c->id, &err) == BB_OK) {
        c->generation = g;
        g->running++;
        return true;
    }
    snprintf(c->error, sizeof c->error, "%.255s", err.message);
    return false;
}

/* Locked; unlocks while it adds. Limits were checked earlier, so a refusal is an error of the request. */
static void take_incoming(bb_engine *e) {
    while (e->incoming) {
        bb_request *r = e->incoming;
        e->incoming = r->next;
        if (!e->incoming) e->last_incoming = NULL;
        r->previous = NULL;
        r->next = e->requests;
        if (r->next) r->next->previous = r;
        e->requests = r;
        r->holders++; /* its last choice may end below */
        for (int i = 0; i < r->choice_count; i++) {
            bb_choice *c = &r->choices[i];
            bool added = false;
            if (!r->cancelled) {
                bb_engine_unlock(e);
                added = add_choice(e, e->generations, c);
                bb_engine_lock(e);
            }
            if (added) continue;
            c->finish = c->error[0] ? BB_FINISH_ERROR : BB_FINISH_CALLER;
            end_choice(e, c);
        }
        let_go(r);
    }
}

static void cancel(bb_request *r) {
    r->cancelled = true;
    for (int i = 0; i < r->choice_count; i++) {
        const bb_choice *c = &r->choices[i];
        if (!c->ended && c->generation) bb_batch_cancel(((generation *)c->generation)->batch, c->id);
    }
}

static void check_requests(bb_engine *e) {
    double now = bb_monotonic_seconds();
    for (bb_request *r = e->requests; r; r = r->next) {
        if (r->cancelled) continue;
        if (!r->connection || (r->suspended && e->options.has_left(r))) {
            e->counts.cancelled++;
            cancel(r);
        } else if (r->deadline > 0 && now > r->deadline) {
            e->counts.timed_out++;
            r->timed_out = true;
            cancel(r);
        } else if (e->cut) {
            r->draining_cut = true;
            cancel(r);
        }
    }
}

/* After the batch of a model failed: ends its texts with the error, and opens a new batch. */
static void replace_batch(bb_engine *e, generation *g, const bb_error *err) {
    bb_error again;
    bb_batch_close(g->batch);
    g->batch = NULL;
    e->counts.failed++;
    for (bb_request *r = e->requests, *next; r; r = next) {
        next = r->next;
        r->holders++;
        for (int i = 0; i < r->choice_count; i++) {
            bb_choice *c = &r->choices[i];
            if (c->ended || c->generation != g) continue;
            c->finish = BB_FINISH_ERROR;
            snprintf(c->error, sizeof c->error, "%.255s", err->message);
            g->running--;
            end_choice(e, c);
        }
        let_go(r);
    }
    if (open_batch(e, g->loaded.model, &g->batch, &again) == BB_OK) return;
    g->batch = NULL;
    e->counts.failed_now = true;
    e->options.log(e->options.user, "failed", again.message);
}

static void count_step(bb_engine *e) {
    e->counts.active = e->counts.waiting = 0;
    e->counts.cache_bytes = 0;
    for (const generation *g = e->generations; g; g = g->next) {
        if (!g->batch) continue;
        bb_batch_state state = bb_batch_get_state(g->batch);
        e->counts.active += state.active;
        e->counts.waiting += state.waiting;
        e->counts.cache_bytes += state.cache_bytes;
    }
}

static void *run(void *user) {
    bb_engine *e = user;
    bb_engine_lock(e);
    while (!e->quit) {
        change_generations(e);
        take_incoming(e);
        check_requests(e);
        bool any = false;
        for (generation *g = e->generations; g; g = g->next) {
            bool more;
            bb_error err;
            if (g->running == 0 || !g->batch) continue;
            any = true;
            e->counts.steps++;
            bb_engine_unlock(e);
            bb_status status = bb_batch_step(g->batch, &more, &err);
            bb_engine_lock(e);
            if (status != BB_OK) replace_batch(e, g, &err);
        }
        count_step(e);
        if (any) e->counts.busy_slots += e->counts.active;
        if (!any && !e->incoming && !e->loaded && !e->quit) pthread_cond_wait(&e->news, &e->lock);
    }
    bb_engine_unlock(e);
    return NULL;
}

/* ---- from other threads ---------------------------------------------------------------------------------------------------- */

bb_status bb_engine_open(const bb_engine_options *options, bb_engine **out, bb_error *err) {
    bb_engine *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code = BB_ERR_MEMORY;
    }
    e->options = *options;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->news, NULL);
    pthread_cond_init(&e->idle, NULL);
    bb_status status = load_generation(e, &e->generations, err);
    if (status == BB_OK) {
        describe(e, e->generations);
        if (pthread_create(&e->thread, NULL, run, e) != 0) {
            status = BB_ERR_MEMORY;
            snprintf(err->message, sizeof err->message, "cannot start a thread");
            close_generation(e->generations);
        }
    }
    if (status != BB_OK) {
        free(e);
        return err->code = status;
    }
    *out = e;
    return BB_OK;
}

void bb_engine_close(bb_engine *e) {
    if (!e) return;
    if (e->loading) pthread_join(e->loader, NULL);
    bb_engine_lock(e);
    e->quit = true;
    pthread_cond_signal(&e->news);
    bb_engine_unlock(e);
    pthread_join(e->thread, NULL);
    for (generation *g = e->generations, *next; g; g = next) {
        next = g->next;
        close_generation(g);
    }
    close_generation(e->loaded);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->news);
    pthread_cond_destroy(&e->idle);
    free(e);
}

bb_submitted bb_engine_submit(bb_engine *e, bb_request *r) {
    bb_submitted result = BB_SUBMITTED;
    bb_engine_lock(e);
    if (e->draining)
        result = BB_DRAINING;
    else if (e->counts.failed_now)
        result = BB_ENGINE_FAILED;
    else if (e->texts + r->choice_count > e->options.sequences + e->options.queue)
        result = BB_QUEUE_FULL;
    if (result == BB_SUBMITTED) {
        r->holders++;
        r->deadline = e->options.timeout > 0 ? bb_monotonic_seconds() + e->options.timeout : 0;
        r->next = NULL;
        if (e->last_incoming)
            e->last_incoming->next = r;
        else
            e->incoming = r;
        e->last_incoming = r;
        e->texts += r->choice_count;
        e->counts.requests++;
        pthread_cond_signal(&e->news);
    } else {
        e->counts.rejected++;
    }
    bb_engine_unlock(e);
    return result;
}

void bb_engine_release(bb_engine *e, bb_request *r) {
    bb_engine_lock(e);
    r->connection = NULL;
    r->suspended = false;
    let_go(r);
    bb_engine_unlock(e);
}

void bb_engine_reload(bb_engine *e) {
    if (e->loading) pthread_join(e->loader, NULL);
    e->loading = pthread_create(&e->loader, NULL, load_in_thread, e) == 0;
    if (!e->loading) e->options.log(e->options.user, "reload_failed", "cannot start a thread");
}

bool bb_engine_drain(bb_engine *e, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    double whole_seconds = floor(seconds);
    until.tv_sec += (time_t)whole_seconds;
    until.tv_nsec += (long)(1e9 * (seconds - whole_seconds));
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    bb_engine_lock(e);
    e->draining = e->counts.draining = true;
    int status = 0;
    while (e->texts > 0 && status == 0) status = pthread_cond_timedwait(&e->idle, &e->lock, &until);
    bool whole = e->texts == 0;
    e->cut = true;
    pthread_cond_signal(&e->news);
    while (e->texts > 0) pthread_cond_wait(&e->idle, &e->lock);
    bb_engine_unlock(e);
    return whole;
}

bb_engine_info bb_engine_get_info(bb_engine *e) {
    bb_engine_lock(e);
    bb_engine_info info = e->info;
    bb_engine_unlock(e);
    return info;
}

char *bb_engine_describe(bb_engine *e) {
    bb_engine_lock(e);
    const char *description = e->generations->loaded.description;
    char *copy = strdup(description ? description : "{}");
    bb_engine_unlock(e);
    return copy;
}

bb_engine_counts bb_engine_get_counts(bb_engine *e) {
    bb_engine_lock(e);
    bb_engine_counts counts = e->counts;
    bb_engine_unlock(e);
    return counts;
}
