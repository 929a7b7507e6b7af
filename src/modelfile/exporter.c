// SPDX-License-Identifier: MIT
#include "modelfile/exporter.h"

static bb_status report(bb_exporter *e, const bb_param *p, bb_error *err) {
    const bb_export_options *o = e->options;
    e->bytes_done += p->count * (int64_t)sizeof(float);
    if (o->on_progress) o->on_progress(o->user, e->bytes_done, e->bytes_total);
    return o->stop && *o->stop ? bb_fail(err, BB_ERR_INTERRUPTED, "%s: stopped; nothing was written", e->path) : BB_OK;
}

/* Values multiplied by a factor on their way to a visitor. */
typedef struct scaling {
    float factor;
    bb_values_visit visit;
    void *user;
} scaling;

static bb_status visit_scaled(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    const scaling *s = user;
    float scaled[1024];
    for (int64_t at = 0; at < n;) {
        int64_t count = n - at < 1024 ? n - at : 1024;
        for (int64_t i = 0; i < count; i++) scaled[i] = values[at + i] * s->factor;
        BB_TRY(s->visit(s->user, first + at, scaled, count, err));
        at += count;
    }
    return BB_OK;
}

bb_status bb_exporter_scan(bb_exporter *e, const bb_param *p, bb_values_visit visit, void *user, bb_error *err) {
    bb_weight weight;
    scaling s = {.factor = 1, .visit = visit, .user = user};
    BB_TRY(e->source.layout->find(&e->source, p, &weight, err));
    if (p->ternary && e->source.layout->quantized) {
        bb_magnitudes magnitudes;
        BB_TRY(bb_model_source_magnitudes(&e->source, p, &weight, &magnitudes, err));
        bb_latent_weights_add(&e->latent, p, &magnitudes);
        s.factor = bb_magnitudes_master_factor(&magnitudes, p->count);
    }
    BB_TRY(s.factor > 1 ? bb_model_source_scan(&e->source, p, &weight, visit_scaled, &s, err)
                        : bb_model_source_scan(&e->source, p, &weight, visit, user, err));
    return report(e, p, err);
}

bb_status bb_exporter_read(bb_exporter *e, const bb_param *p, float *out, bb_error *err) {
    bb_device *dev = e->model->device;
    dev->ops->copy_out(dev, out, e->model->params + p->offset, (size_t)p->count * sizeof *out);
    BB_TRY(dev->ops->sync(dev, err));
    return report(e, p, err);
}

bb_status bb_exporter_ternary(bb_exporter *e, const bb_param *p, int8_t *q, float *scale, bb_error *err) {
    bb_device *dev = e->model->device;
    size_t count = (size_t)p->count;
    bb_ternary t = bb_model_ternary(e->model, (int)(p - e->table.entries));
    int8_t *device_q = dev->ops->alloc(dev, count);
    if (!device_q) return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s: %.1f MB", p->name, 1e-6 * (double)count);
    dev->ops->ternary_unpack(dev, device_q, &t);
    dev->ops->copy_out(dev, q, device_q, count);
    dev->ops->copy_out(dev, scale, t.scale, sizeof *scale);
    bb_status status = dev->ops->sync(dev, err);
    dev->ops->free(dev, device_q, count);
    return status == BB_OK ? report(e, p, err) : status;
}
