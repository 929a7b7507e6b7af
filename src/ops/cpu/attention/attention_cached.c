// SPDX-License-Identifier: MIT
/* Attention of a batch of sequences over their caches. Small batches of queries, as in decoding, read a cache in place, in units of
 * one block of keys of one head, each unit once for all queries; a team of threads shares the units of all such sequences.
 * Sequences with more queries are processed tile by tile, which gives the same bits. */
#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/device/team.h"

enum {
    DIRECT_QUERIES = BB_SMALL_BATCH_ROWS, /* with so few queries, packing the keys does not pay */
    /* elements of k and of partial results below which a second thread costs more than it saves */
    DIRECT_SERIAL = 1 << 15,
    MERGE_SERIAL = 1 << 14
};

/* A sequence with a small batch of queries: query i is row i % Tq of head i / Tq. */
typedef struct direct_sequence {
    attention_job job;
    bb_kv_layer layer;
    int64_t block, blocks;   /* keys in a block; blocks per head */
    float *partials;         /* (H*Tq, blocks, partial_width(D)) */
    cached_q *prepared;      /* (H*Tq); not for F32 */
    const bb_codes_set *set; /* NULL for F32 */
} direct_sequence;

typedef struct cached_pass {
    const bb_f32_set *f32;
    const bb_codes_set *codes, *int6;
    int64_t D, threads;
    size_t thread_bytes;
    int64_t count;                                 /* sequences with small batches of queries */
    int64_t queries, partials_count, key_elements; /* of all these sequences */
    direct_sequence *sequences;
    int64_t *first_unit, *first_query; /* (count+1), as bb_group_of expects */
    float *partials;                   /* (partials_count, partial_width(D)) */
    cached_q *prepared;                /* (queries) */
    int16_t *q_codes;                  /* (queries, D rounded up to 64) */
    char *scratch;                     /* (threads, thread_bytes) */
    int64_t tiled_count;               /* the other sequences */
    attention_job *tiled;
    bb_kv_layer *tiled_layers;
    int64_t *first_task; /* (tiled_count+1) */
} cached_pass;

static int64_t keys_seen(const bb_attention *a, int64_t query) { return query % a->Tq + 1 + a->Tk - a->Tq; }

static const float *query_at(const attention_job *j, int64_t query) {
    return j->q + query % j->a.Tq * j->a.q_stride + query / j->a.Tq * j->a.D;
}

static float *partial_at(const direct_sequence *s, int64_t query, int64_t block) {
    return s->partials + (query * s->blocks + block) * partial_width(s->job.a.D);
}

/* The codes of a unit's keys. */
static const int8_t *codes_of(const direct_sequence *s, int64_t unit) {
    return cached_from(&s->layer, unit / s->blocks, unit % s->blocks * s->block, s->job.a.D).k;
}

static void run_unit(const cached_pass *p, int64_t i, void *scratch) {
    int64_t group = bb_group_of(p->first_unit, p->count, i), unit = i - p->first_unit[group];
    const direct_sequence *s = &p->sequences[group];
    const bb_attention *a = &s->job.a;
    int64_t head = unit / s->blocks, first = head * (a->H / a->Hk) * a->Tq;
    forward_unit u = {.job = &s->job,
                      .head = head,
                      .key0 = unit % s->blocks * s->block,
                      .partials = partial_at(s, first, unit % s->blocks),
                      .partial_stride = s->blocks * partial_width(a->D)};
    if (!s->set) {
        p->f32->unit(&u, scratch);
        return;
    }
    u.queries = s->prepared + first;
    if (i + 1 < p->first_unit[group + 1])
        u.next = codes_of(s, unit + 1);
    else if (group + 1 < p->count && s[1].set)
        u.next = codes_of(s + 1, 0);
    s->set->unit(&u, scratch);
}

static void prepare_query(const cached_pass *p, int64_t i) {
    int64_t group = bb_group_of(p->first_query, p->count, i), query = i - p->first_query[group];
    const direct_sequence *s = &p->sequences[group];
    if (s->set) s->set->query(&s->prepared[query], query_at(&s->job, query), p->D);
}

static void merge_query(const cached_pass *p, int64_t i) {
    int64_t group = bb_group_of(p->first_query, p->count, i), query = i - p->first_query[group];
    const direct_sequence *s = &p->sequences[group];
    const bb_attention *a = &s->job.a;
    p->f32->merge(s->job.o + query % a->Tq * a->o_stride + query / a->Tq * p->D, partial_at(s, query, 0),
                  bb_ceil_div(keys_seen(a, query), s->block), p->D);
}

static void prepare_queries(void *user, bb_team *team, int thread) {
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread)) prepare_query(user, i);
}

static void run_units(void *user, bb_team *team, int thread) {
    const cached_pass *p = user;
    void *scratch = p->scratch + (size_t)thread * p->thread_bytes;
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
                                 .o_stride = batch->o_stride},
                           .kv = layer};
}

static int64_t block_of(const bb_kv *kv) { return kv->type == BB_KV_F32 ? F32_BLOCK : CODES_BLOCK; }

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
        p->partials_count += queries * bb_ceil_div(keys, block_of(s->kv));
        p->key_elements += s->kv->Hk * keys * p->D;
    }
}

static void layout(cached_pass *p, bb_arena *arena) {
    size_t n = (size_t)p->count, tiled = (size_t)p->tiled_count, queries = (size_t)p->queries;
    p->sequences = bb_arena_alloc(arena, n * sizeof *p->sequences);
    p->first_unit = bb_arena_alloc(arena, (n + 1) * sizeof *p->first_unit);
    p->first_query = bb_arena_alloc(arena, (n + 1) * sizeof *p->first_query);
    p->partials = bb_arena_alloc(arena, (size_t)(p->partials_count * partial_width(p->D)) * sizeof *p->partials);
    p->prepared = bb_arena_alloc(arena, queries * sizeof *p->prepared);
    p->q_codes = bb_arena_alloc(arena, queries * (size_t)bb_round_up(p->D, 64) * sizeof *p->q_codes);
    p->scratch = bb_arena_alloc(arena, n ? (size_t)p->threads * p->thread_bytes : 0);
    p->tiled = bb_arena_alloc(arena, tiled * sizeof *p->tiled);
    p->tiled_layers = bb_arena_alloc(arena, tiled * sizeof *p->tiled_layers);
    p->first_task = bb_arena_alloc(arena, (tiled + 1) * sizeof *p->first_task);
}

static void direct_init(const cached_pass *p, direct_sequence *s, const bb_kv *kv, int64_t first_query, float *partials) {
    const bb_attention *a = &s->job.a;
    int64_t queries = a->H * a->Tq, codes_width = bb_round_up(p->D, 64);
    s->block = block_of(kv);
    s->blocks = bb_ceil_div(a->Tk, s->block);
    s->partials = partials;
    s->prepared = p->prepared + first_query;
    for (int64_t i = 0; i < queries; i++) s->prepared[i].codes = p->q_codes + (first_query + i) * codes_width;
    s->set = kv->type == BB_KV_F32 ? NULL : kv->type == BB_KV_INT6 ? p->int6 : p->codes;
}

/* Divides the batch into sequences with small batches of queries and the others. */
static void fill(cached_pass *p, float *o, const float *q, const bb_kv_batch *batch) {
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
            direct_init(p, s, from->kv, p->first_query[n], partials);
            partials += queries * s->blocks * partial_width(p->D);
            p->first_unit[n + 1] = p->first_unit[n] + job->a.Hk * s->blocks;
            p->first_query[n + 1] = p->first_query[n] + queries;
            n++;
        }
    }
}

void bb_cpu_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    const bb_cpu_kernels *kernels = &bb_cpu_of(dev)->kernels;
    cached_pass p = {.f32 = kernels->attention_f32,
                     .codes = kernels->attention_codes,
                     .int6 = kernels->attention_int6 ? kernels->attention_int6 : kernels->attention_codes,
                     .D = batch->sequences->kv->D,
                     .threads = dev->threads};
    p.thread_bytes = bb_cpu_forward_bytes(dev, p.D);
    count_sequences(&p, batch);
    bb_arena arena = {0};
    layout(&p, &arena);
    arena.base = bb_cpu_shared(dev, arena.used);
    if (!arena.base) return;
    arena.used = 0;
    layout(&p, &arena);
    fill(&p, o, q, batch);
    if (p.count) {
        bb_team *team = bb_cpu_team(dev);
        bb_team_prefetch unknown = {0};
        if (!team) return;
        bb_team_run(team, p.queries * p.D <= DIRECT_SERIAL, p.queries, prepare_queries, &p, unknown);
        bb_team_run(team, p.key_elements <= DIRECT_SERIAL, p.first_unit[p.count], run_units, &p, unknown);
        bb_team_run(team, p.partials_count * p.D <= MERGE_SERIAL, p.queries, merge_queries, &p, unknown);
    }
    if (p.tiled_count) bb_cpu_forward_tiles(dev, p.tiled, p.first_task, p.tiled_count);
}
