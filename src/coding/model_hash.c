// SPDX-License-Identifier: MIT
#include "coding/model_hash.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/math.h"
#include "model/config.h"
#include "model/model.h"

static void add_config(XXH3_state_t *hash, const bb_config *c) {
    const int64_t whole[] = {c->vocab_size, c->n_layer, c->d_model, c->n_head, c->n_kv_head, c->d_ff, c->act_quant};
    const double real[] = {c->rope_base, c->norm_eps};
    (void)XXH3_128bits_update(hash, whole, sizeof whole);
    (void)XXH3_128bits_update(hash, real, sizeof real);
    const int64_t ngrams[] = {c->ngram_max, c->ngram_bits};
    if (c->ngram_max)
        (void)XXH3_128bits_update(hash, ngrams, sizeof ngrams); /* hashed only if used, so that earlier streams stay valid */
}

/* device, host: buffers for one parameter: a byte an element if it is ternary, else four */
static bb_status add_parameter(XXH3_state_t *hash, bb_model *m, int index, void *device, void *host, bb_error *err) {
    const bb_param *p = &m->table.entries[index];
    bb_device *dev = m->device;
    size_t bytes = (size_t)p->count * (p->ternary ? 1 : sizeof(float));
    float scale = 0;
    if (p->ternary) {
        bb_ternary t = bb_model_ternary(m, index);
        dev->ops->ternary_unpack(dev, device, &t);
        dev->ops->copy_out(dev, host, device, bytes);
        dev->ops->copy_out(dev, &scale, t.scale, sizeof scale);
    } else {
        dev->ops->copy_out(dev, host, m->params + p->offset, bytes);
    }
    BB_TRY(dev->ops->sync(dev, err));
    if (p->ternary) (void)XXH3_128bits_update(hash, &scale, sizeof scale);
    (void)XXH3_128bits_update(hash, host, bytes);
    return BB_OK;
}

/* Codes and scales, as a model for inference holds them; others make them here. host: as above */
static bb_status add_ngrams(XXH3_state_t *hash, bb_model *m, void *host, bb_error *err) {
    bb_device *dev = m->device;
    size_t rows = (size_t)bb_config_ngram_rows(&m->config), codes = rows * (size_t)m->config.d_model;
    bb_ngram_table table = m->ngram;
    void *made = NULL;
    if (table.values) {
        made = dev->ops->alloc(dev, bb_ngram_bytes(&m->config));
        if (!made) return bb_fail(err, BB_ERR_MEMORY, "no memory to hash the model: %.1f MB", 1e-6 * (double)codes);
        table = bb_ngram_codes(&m->config, made);
        dev->ops->ngram_quant(dev, &table, m->ngram.values, 0, (int64_t)rows);
    }
    dev->ops->copy_out(dev, host, table.codes, codes);
    bb_status status = dev->ops->sync(dev, err);
    if (status == BB_OK) {
        (void)XXH3_128bits_update(hash, host, codes);
        dev->ops->copy_out(dev, host, table.scales, rows * sizeof *table.scales);
        status = dev->ops->sync(dev, err);
    }
    if (status == BB_OK) (void)XXH3_128bits_update(hash, host, rows * sizeof *table.scales);
    if (made) dev->ops->free(dev, made, bb_ngram_bytes(&m->config));
    return status;
}

bb_status bb_model_hash(bb_model *m, uint8_t out[BB_MODEL_HASH_BYTES], bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    size_t max_bytes = 1;
    for (int i = 0; i < m->table.count; i++) {
        const bb_param *p = &m->table.entries[i];
        max_bytes = (size_t)bb_max((int64_t)max_bytes, p->count * (p->ternary ? 1 : (int64_t)sizeof(float)));
    }
    XXH3_state_t *hash = XXH3_createState();
    void *device = m->device->ops->alloc(m->device, max_bytes), *host = malloc(max_bytes);
    bb_status status = BB_OK;
    if (!hash || !device || !host) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory to hash the model: %.1f MB", 2e-6 * (double)max_bytes);
        goto done;
    }
    (void)XXH3_128bits_reset(hash);
    add_config(hash, &m->config);
    bb_model_prepare(m);
    for (int i = 0; i < m->table.count; i++)
        BB_TRY_GOTO(status, done,
                    i == m->table.ngram ? add_ngrams(hash, m, host, err) : add_parameter(hash, m, i, device, host, err));
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash));
    memcpy(out, canonical.digest, BB_MODEL_HASH_BYTES);
done:
    (void)XXH3_freeState(hash);
    if (device) m->device->ops->free(m->device, device, max_bytes);
    free(host);
    return status;
}
