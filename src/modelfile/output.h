// SPDX-License-Identifier: MIT
/* Protects files that an output would replace. */
#ifndef BB_MODELFILE_OUTPUT_H
#define BB_MODELFILE_OUTPUT_H

#include "model/model.h"

/* Records which file the model was loaded from. */
void bb_model_set_source(bb_model *model, const char *path);
/* Fails with BB_ERR_ARGUMENT if `path`, after resolving links, is that file or belongs to the model or run it came from. */
bb_status bb_output_check_source(const bb_model *model, const char *path, bb_error *err);
bb_status bb_output_check_same(const char *source, const char *path, bb_error *err);
/* Sets *is to whether this is the text of a run's config.json. */
bb_status bb_output_is_run_config(const char *text, size_t size, bool *is, bb_error *err);

#endif
