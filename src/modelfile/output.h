// SPDX-License-Identifier: MIT
/* What a file that is about to be written would replace. */
#ifndef BB_MODELFILE_OUTPUT_H
#define BB_MODELFILE_OUTPUT_H

#include "model/model.h"

/* Notes in the model which file it was loaded from. */
void bb_model_set_source(bb_model *model, const char *path);
/* BB_ERR_ARGUMENT where `path`, through links, is that file; or the file `source`. */
bb_status bb_output_check_source(const bb_model *model, const char *path, bb_error *err);
bb_status bb_output_check_same(const char *source, const char *path, bb_error *err);
/* Whether this is the text of a run's config.json. */
bb_status bb_output_is_run_config(const char *text, size_t size, bool *is, bb_error *err);

#endif
