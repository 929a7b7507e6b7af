// SPDX-License-Identifier: MIT
#include "inference/stop.h"

#include <stdlib.h>

static void borders_of(const bb_bytes *text, size_t *border) {
    border[0] = 0;
    for (size_t i = 1, n = 0; i < text->size; i++) {
        while (n > 0 && text->data[i] != text->data[n]) n = border[n - 1];
        if (text->data[i] == text->data[n]) n++;
        border[i] = n;
    }
}

bb_status bb_stop_open(const bb_bytes *texts, int count, bb_stop *out, bb_error *err) {
    *out = (bb_stop){.texts = texts};
    if (count < 0 || (count > 0 && !texts))
        return bb_fail(err, BB_ERR_ARGUMENT, "stop_count is %d, and stops is %s", count, texts ? "not NULL" : "NULL");
    for (int i = 0; i < count; i++)
        if (!texts[i].data)
            return bb_fail(err, BB_ERR_ARGUMENT, "stop text %d is NULL", i + 1);
        else if (texts[i].size < 1 || texts[i].size > BB_STOP_MAX_BYTES)
            return bb_fail(err, BB_ERR_ARGUMENT, "stop text %d has %zu bytes: it must have from 1 to %d", i + 1, texts[i].size,
                           BB_STOP_MAX_BYTES);
    if (count < 1) return BB_OK;
    out->borders = calloc((size_t)count, sizeof *out->borders);
    out->matched = calloc((size_t)count, sizeof *out->matched);
    bool good = out->borders && out->matched;
    for (; good && out->count < count; out->count++) {
        size_t *border = malloc(texts[out->count].size * sizeof *border);
        out->borders[out->count] = border;
        good = border != NULL;
        if (good) borders_of(&texts[out->count], border);
    }
    if (good) return BB_OK;
    bb_stop_close(out);
    return bb_fail(err, BB_ERR_MEMORY, "out of memory for %d stop texts", count);
}

void bb_stop_close(bb_stop *stop) {
    for (int i = 0; stop->borders && i < stop->count; i++) free(stop->borders[i]);
    free(stop->borders);
    free(stop->matched);
    *stop = (bb_stop){.count = 0};
}

int bb_stop_push(bb_stop *stop, uint8_t byte) {
    int found = -1;
    for (int i = 0; i < stop->count; i++) {
        const bb_bytes *text = &stop->texts[i];
        size_t n = stop->matched[i];
        if (n == text->size) n = stop->borders[i][n - 1];
        while (n > 0 && text->data[n] != byte) n = stop->borders[i][n - 1];
        if (text->data[n] == byte) n++;
        stop->matched[i] = n;
        if (n == text->size && (found < 0 || n > stop->texts[found].size)) found = i;
    }
    return found;
}

size_t bb_stop_held(const bb_stop *stop) {
    size_t held = 0;
    for (int i = 0; i < stop->count; i++)
        if (stop->matched[i] > held) held = stop->matched[i];
    return held;
}
