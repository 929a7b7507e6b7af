// SPDX-License-Identifier: MIT
/* Telling the config.json of a run from that of a model. */
#ifndef BB_MODELFILE_RUN_CONFIG_H
#define BB_MODELFILE_RUN_CONFIG_H

#include "core/status.h"

/* Whether this is the text of a run's config.json. */
bb_status bb_is_run_config(const char *text, size_t size, bool *is, bb_error *err);

#endif
