// SPDX-License-Identifier: MIT
#include "modelfile/run_config.h"

#include <string.h>

#include "core/json.h"

bb_status bb_is_run_config(const char *text, size_t size, bool *is, bb_error *err) {
    json_t *root;
    bb_status status = bb_json_parse(text, size, "config.json", 0, &root, err);
    const char *format = json_string_value(json_object_get(root, "format"));
    *is = format && strcmp(format, "bitbyte-run") == 0;
    json_decref(root);
    return status == BB_ERR_FORMAT ? BB_OK : status;
}
