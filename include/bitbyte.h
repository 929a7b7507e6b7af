// SPDX-License-Identifier: MIT
/* BitByte: a byte-level language model with ternary weights. The public C API by topic; each header can also be included alone:
 *     bitbyte/base.h         status and errors, option structs, devices
 *     bitbyte/model.h        configuration, model files, weights, passes; the quantizers and the BitLinear layer
 *     bitbyte/inference.h    evaluation, generation, many texts at once, scores
 *     bitbyte/compression.h  lossless compression with a model's predictions
 *     bitbyte/data.h         datasets, text of any format, packing it into shards
 *     bitbyte/training.h     schedules, optimizers, the trainer, run directories
 *     bitbyte/plan.h         memory, training for a given time
 *     bitbyte/dist.h         training in many processes
 *     bitbyte/bench.h        profiles and benchmarks
 *
 * A function that can fail returns bb_status, stores its result in an out-parameter and, on failure, fills the caller's
 * bb_error (which may be NULL). The library never prints, exits or installs signal handlers, except as bb_dist_open says. Use
 * a handle from one thread at a time; devices may be shared. Arrays are row-major, in host memory. A pointer may be NULL only
 * where its comment says so; otherwise NULL is BB_ERR_ARGUMENT, and functions without a status return 0, false or NULL.
 * Option structs are filled by their bb_X_default first: see base.h. */
#ifndef BITBYTE_H
#define BITBYTE_H

#define BB_VERSION_MAJOR 0
#define BB_VERSION_MINOR 1
#define BB_VERSION_PATCH 0

#include "bitbyte/base.h"
#include "bitbyte/bench.h"
#include "bitbyte/compression.h"
#include "bitbyte/data.h"
#include "bitbyte/dist.h"
#include "bitbyte/inference.h"
#include "bitbyte/model.h"
#include "bitbyte/plan.h"
#include "bitbyte/training.h"

#endif
