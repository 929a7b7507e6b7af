// SPDX-License-Identifier: MIT
/* Opens an engine by name. It is above the engines, which know dist.h and not each other. */
#include <string.h>

#include "dist/dist.h"

bb_status bb_dist_open(const char *engine, bb_dist **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("engine", engine);
    if (strcmp(engine, "single") == 0) return bb_dist_open_single(out, err);
    if (strcmp(engine, "mpi") == 0) return bb_dist_open_mpi(out, err);
    return bb_fail(err, BB_ERR_ARGUMENT, "engine '%s': expected single or mpi", engine);
}
