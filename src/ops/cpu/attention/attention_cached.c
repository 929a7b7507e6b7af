// SPDX-License-Identifier: MIT
/* Attention of a batch of sequences over their caches. Small batches of queries, as in decoding, read a cache in place, in
 * units of DIRECT_KEYS keys of one head, each unit once for all queries; a team of threads shares the units of all such
 * sequences. Sequences with more queries are processed tile by tile. No result depends on the other sequences of the batch. */
#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/device/team.h"

/* A sequence with a small batch of queries: query i is row i % Tq of head i / Tq. */
typedef struct direct_sequence {
    attention_job job;
    bb_kv_layer layer;
    int64_t splits;     /* units per head */
    float *partials;    /* (H*Tq, splits, partial_width(D)) */
    cached_q *prepared; /* (H*Tq); not for F32 */
    bool unpack;        /* six-bit codes are converted to int8 first */
    cached_query_function *query;
    cached_partial_function *cached;
} direct_sequence;

typedef struct cached_pass {
    const forward_functions *f;
    int64_t D, threads;
    int64_t count;                         /* sequences with small batches of queries */
    int64_t queries, splits, key_elements; /* of all these sequences; splits: of all queries */
    direct_sequence *sequences;
    int64_t *first_unit, *first_query; /* (count+1), as bb_group_of expects */
    float *partials;                   /* (splits, partial_width(D)) */
    cached_q *prepared;                /* (queries) */
    int16_t *q_codes;                  /* (queries, D rounded up to 64) */
    char *scratch;                     /* (threads, cached_bytes(D)) */
    int64_t tiled_count;               /* the other sequences */
    attention_job *tiled;
    bb_kv_layer *tiled_layers;
    int64_t *first_task; /* (tiled_count+1) */
} cached_pass;

static int64_t keys_seen(const bb_attention *a, int64_t query) { return query % a->Tq + 1 + a->Tk - a->Tq; }

static const float *query_at(const attention_job *j, int64_t query) {
    return j->q + query % j->a.Tq * j->a.q_stride + query / j->a.Tq * j->a.D;
}

static float *partial_at(const direct_sequence *s, int64_t query, int64_t key0) {
    return s->partials + (query * s->splits + key0 / DIRECT_KEYS) * partial_width(s->job.a.D);
}

static void f32_unit(const cached_pass *p, const direct_sequence *s, int64_t unit, void *scratch) {
    const bb_attention *a = &s->job.a;
    int64_t D = a->D, queries = a->H / a->Hk * a->Tq, key0 = unit % s->splits * DIRECT_KEYS, head = unit / s->splits;
    int64_t at = key0 * a->kv_stride + head * D;
    for (int64_t i = head * queries; i < (head + 1) * queries; i++) {
        int64_t keys = bb_clamp(keys_seen(a, i) - key0, 0, DIRECT_KEYS);
        if (keys > 0)
            p->f->partial(partial_at(s, i, key0), query_at(&s->job, i), s->job.k + at, s->job.v + at, a->kv_stride, keys, D,
                          scratch);
    }
}

static cached_rows rows_at(const direct_sequence *s, int64_t unit) {
    return cached_from(&s->layer, unit / s->splits, unit % s->splits * DIRECT_KEYS, s->job.a.D);
}

/* next: what will be read after this unit, or NULL. */
static void codes_unit(const cached_pass *p, const direct_sequence *s, int64_t unit, const int8_t *next, void *scratch) {
    const bb_attention *a = &s->job.a;
    int64_t D = a->D, queries = a->H / a->Hk * a->Tq, key0 = unit % s->splits * DIRECT_KEYS, head = unit / s->splits;
    cached_rows rows = rows_at(s, unit);
    if (next) rows.next = next;
    if (s->unpack)
        p->f->unpack(&rows, (int8_t *)scratch + cached_partial_bytes(), bb_clamp(a->Tk - key0, 0, DIRECT_KEYS), DIRECT_KEYS, D);
    int64_t end = (head + 1) * queries, stride = s->splits * partial_width(D);
    for (int64_t i = head * queries; i < end; i += CACHED_QUERIES) {
        int64_t keys[CACHED_QUERIES], max_keys = 0, count = bb_min(end - i, CACHED_QUERIES);
        for (int64_t n = 0; n < count; n++) {
            keys[n] = bb_clamp(keys_seen(a, i + n) - key0, 0, DIRECT_KEYS);
            max_keys = bb_max(keys[n], max_keys);
        }
        s->cached(partial_at(s, i, key0), stride, &s->prepared[i], (int)count, &rows, keys, max_keys, D, scratch);
    }
}

static void run_unit(const cached_pass *p, int64_t i, void *scratch) {
    int64_t group = bb_group_of(p->first_unit, p->count, i), unit = i - p->first_unit[group];
    const direct_sequence *s = &p->sequences[group];
    if (!s->job.kv) {
        f32_unit(p, s, unit, scratch);
        return;
    }
    const int8_t *next = NULL;
    if (i + 1 < p->first_unit[group + 1])
        next = rows_at(s, unit + 1).k;
    else if (group + 1 < p->count && s[1].job.kv)
        next = rows_at(s + 1, 0).k;
    codes_unit(p, s, unit, next, scratch);
}

static void prepare_query(const cached_pass *p, int64_t i) {
    int64_t group = bb_group_of(p->first_query, p->count, i), query = i - p->first_query[group];
    const direct_sequence *s = &p->sequences[group];
    if (s->job.kv) s->query(&s->prepared[query], query_at(&s->job, query), p->D);
}

static void merge_query(const cached_pass *p, int64_t i) {
    int64_t group = bb_group_of(p->first_query, p->count, i), query = i - p->first_query[group];
    const direct_sequence *s = &p->sequences[group];
    const bb_attention *a = &s->job.a;
    p->f->merge(s->job.o + query % a->Tq * a->o_stride + query / a->Tq * p->D, NULL, NULL, partial_at(s, query, 0),
                bb_ceil_div(keys_seen(a, query), DIRECT_KEYS), p->D);
}

static void prepare_queries(void *user, bb_team *team, int thread) {
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) prepare_query(user, i);
}

static void run_units(void *user, bb_team *team, int thread) {
    const cached_pass *p = user;
    void *scratch = p->scratch + (size_t)thread * cached_bytes(p->D);
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) run_unit(p, i, scratch);
}

static void merge_queries(void *user, bb_team *team, int thread) {
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) merge_query(user, i);
}

/* Sets all but q and o; the job refers to *layer. */
static void job_init(attention_job *job, const bb_kv_layer *layer, const bb_kv_batch *batch, const bb_kv_sequence *s) {
    *job = (attention_job){.a = {.B = 1,
                                 .Tq = s->rows,
                                 .Tk = s->length + s->rows,
                                 .H = batch->H,
                                 .Hk = s->kv->Hk,
                                 .D = s->kv->D,
                                 .q_stride = batch->q_stride,
                                 .kv_stride = s->kv->Hk * s->kv->D,
                                 .o_stride = batch->o_stride}};
    if (layer->type == BB_KV_F32) {
        job->k = layer->k;
        job->v = layer->v;
    } else {
        job->kv = layer;
    }
}

static void count_sequences(cached_pass *p, const bb_kv_batch *batch) {
    for (int64_t b = 0; b < batch->B; b++) {
        const bb_kv_sequence *s = &batch->sequences[b];
        int64_t keys = s->length + s->rows, queries = batch->H * s->rows;
        if (s->rows > DIRECT_QUERIES) {
            p->tiled_count++;
            continue;
        }
        p->count++;
        p->queries += queries;
        p->splits += queries * bb_ceil_div(keys, DIRECT_KEYS);
        p->key_elements += s->kv->Hk * keys * p->D;
    }
}

static void layout(cached_pass *p, bb_arena *arena) {
    size_t n = (size_t)p->count, tiled = (size_t)p->tiled_count, queries = (size_t)p->queries;
    p->sequences = bb_arena_alloc(arena, n * sizeof *p->sequences);
    p->first_unit = bb_arena_alloc(arena, (n + 1) * sizeof *p->first_unit);
    p->first_query = bb_arena_alloc(arena, (n + 1) * sizeof *p->first_query);
    p->partials = bb_arena_alloc(arena, (size_t)(p->splits * partial_width(p->D)) * sizeof *p->partials);
    p->prepared = bb_arena_alloc(arena, queries * sizeof *p->prepared);
    p->q_codes = bb_arena_alloc(arena, queries * (size_t)bb_round_up(p->D, 64) * sizeof *p->q_codes);
    p->scratch = bb_arena_alloc(arena, n ? (size_t)p->threads * cached_bytes(p->D) : 0);
    p->tiled = bb_arena_alloc(arena, tiled * sizeof *p->tiled);
    p->tiled_layers = bb_arena_alloc(arena, tiled * sizeof *p->tiled_layers);
    p->first_task = bb_arena_alloc(arena, (tiled + 1) * sizeof *p->first_task);
}

static void direct_init(cached_pass *p, direct_sequence *s, bb_device *dev, int64_t first_query, float *partials) {
    const bb_attention *a = &s->job.a;
    int64_t queries = a->H * a->Tq, codes_width = bb_round_up(p->D, 64);
    s->splits = bb_ceil_div(a->Tk, DIRECT_KEYS);
    s->partials = partials;
    s->prepared = p->prepared + first_query;
    for (int64_t i = 0; i < queries; i++) s->prepared[i].q_codes = p->q_codes + (first_query + i) * codes_width;
    s->query = p->f->query;
    s->cached = p->f->cached;
    s->unpack = s->layer.type == BB_KV_INT6 && !bb_cpu_int6_functions(dev, &s->query, &s->cached);
}

/* Divides the batch into sequences with small batches of queries and the others. */
static void fill(cached_pass *p, bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    int64_t row = 0, n = 0, tiled = 0;
    float *partials = p->partials;
    p->first_unit[0] = p->first_query[0] = p->first_task[0] = 0;
    for (int64_t b = 0; b < batch->B; b++) {
        const bb_kv_sequence *from = &batch->sequences[b];
        bool many = from->rows > DIRECT_QUERIES;
        bb_kv_layer *layer = many ? &p->tiled_layers[tiled] : &p->sequences[n].layer;
        attention_job *job = many ? &p->tiled[tiled] : &p->sequences[n].job;
        *layer = bb_kv_layer_of(from->kv, batch->layer);
        job_init(job, layer, batch, from);
        job->q = q + row * batch->q_stride;
        job->o = o + row * batch->o_stride;
        row += from->rows;
        if (many) {
            p->first_task[tiled + 1] = p->first_task[tiled] + bb_cpu_forward_tasks(job);
            tiled++;
        } else {
            direct_sequence *s = &p->sequences[n];
            int64_t queries = job->a.H * job->a.Tq;
            direct_init(p, s, dev, p->first_query[n], partials);
            partials += queries * s->splits * partial_width(p->D);
            p->first_unit[n + 1] = p->first_unit[n] + job->a.Hk * s->splits;
            p->first_query[n + 1] = p->first_query[n] + queries;
            n++;
        }
    }
}

void bb_cpu_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    cached_pass p = {.f = bb_cpu_forward_functions(dev), .D = batch->sequences->kv->D, .threads = dev->threads};
    count_sequences(&p, batch);
    bb_arena arena = {0};
    layout(&p, &arena);
    arena.base = bb_cpu_shared(dev, arena.used);
    if (!arena.base) return;
    arena.used = 0;
    layout(&p, &arena);
    fill(&p, dev, o, q, batch);
    if (p.count) {
        bb_team *team = bb_cpu_team(dev);
        bb_team_prefetch unknown = {0};
        if (!team) return;
        bb_team_run(team, p.queries * p.D <= DIRECT_SERIAL, p.queries, prepare_queries, &p, unknown);
        bb_team_run(team, p.key_elements <= DIRECT_SERIAL, p.first_unit[p.count], run_units, &p, unknown);
        bb_team_run(team, p.splits * p.D <= MERGE_SERIAL, p.queries, merge_queries, &p, unknown);
    }
    if (p.tiled_count) bb_cpu_forward_tiles(dev, p.tiled, p.first_task, p.tiled_count);
}
