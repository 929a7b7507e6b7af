// SPDX-License-Identifier: MIT
/* Distinguishes a run's config.json from a model's. */
#ifndef BB_MODELFILE_RUN_CONFIG_H
#define BB_MODELFILE_RUN_CONFIG_H

#include "core/status.h"

/* Sets *is to whether this is the text of a run's config.json. */
bb_status bb_is_run_config(const char *text, size_t size, bool *is, bb_error *err);

#endif
