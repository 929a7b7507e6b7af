// SPDX-License-Identifier: MIT
/* Records failures of the MPI engine; the first one is kept. */
#ifdef BB_HAVE_MPI
#include "dist/mpi_engine.h"

#include <stdarg.h>
#include <stdio.h>

void bb_mpi_fail(bb_mpi *m, bb_status code, const char *fmt, ...) {
    if (m->failure.code != BB_OK) return;
    char message[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    (void)bb_fail(&m->failure, code, "rank %d on %s: %s", m->base.rank, m->base.hosts[m->base.rank], message);
}

void bb_mpi_check(bb_mpi *m, int code, const char *doing) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    bb_mpi_fail(m, BB_ERR_PEER, "%s failed: %s", doing, text);
}
#endif
