// SPDX-License-Identifier: MIT
#include "training/run_data.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "data/identity.h"
#include "training/checkpoint_read.h"

bb_status bb_run_data_load(bb_run_data *data, const char *checkpoint, bb_error *err) {
    char *text;
    BB_TRY(bb_checkpoint_text(checkpoint, BB_CHECKPOINT_DATA, &text, err));
    json_decref(data->before);
    data->before = NULL;
    bb_status status = text ? bb_json_parse(text, strlen(text), "data", 0, &data->before, err) : BB_OK;
    free(text);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", checkpoint);
    if (data->before && bb_data_identity_blocks(data->before) == 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: data: expected an object with \"blocks\" above 0 and an array \"files\"",
                       checkpoint);
    return BB_OK;
}

bb_status bb_run_data_check(bb_run_data *data, bb_dataset *dataset, char *changes, size_t size, bb_error *err) {
    json_t *now;
    changes[0] = '\0';
    BB_TRY(bb_data_identity(&dataset->source, data->before ? bb_data_identity_blocks(data->before) : 0, &now, err));
    bool known = data->before && bb_data_identity_same(data->before, now, changes, size);
    free(data->text);
    /* Unchanged data keep their recorded names, so that a run that moves writes the same checkpoints. */
    data->text = bb_json_text(known ? data->before : now, JSON_COMPACT);
    json_decref(now);
    return data->text ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for the hashes of the data");
}

void bb_run_data_free(bb_run_data *data) {
    json_decref(data->before);
    free(data->text);
    *data = (bb_run_data){0};
}
