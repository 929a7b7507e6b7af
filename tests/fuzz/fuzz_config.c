// SPDX-License-Identifier: MIT
/* Any text as a model's configuration: it is refused with a message, or it is possible and comes back the same from its JSON. */
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const bb_config *a, const bb_config *b) {
    return a->vocab_size == b->vocab_size && a->n_layer == b->n_layer && a->d_model == b->d_model && a->n_head == b->n_head &&
           a->n_kv_head == b->n_kv_head && a->d_ff == b->d_ff && a->rope_base == b->rope_base && a->norm_eps == b->norm_eps &&
           a->act_quant == b->act_quant && a->ste == b->ste && a->dense == b->dense;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bb_config config, back;
    bb_error err = {.code = BB_OK};
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    bb_status status = bb_config_from_json(text, "input", &config, &err);
    free(text);
    if (status != BB_OK) {
        if (strncmp(err.message, "input: config", 13) != 0) abort();
        return 0;
    }
    if (bb_config_check(&config, &err) != BB_OK || bb_config_parameters(&config) < 1) abort();
    json_t *json = bb_config_to_json(&config);
    text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!text || bb_config_from_json(text, "back", &back, &err) != BB_OK || !same(&config, &back)) abort();
    free(text);
    return 0;
}
