// SPDX-License-Identifier: MIT
/* The dashboard of training runs: a page with the plots of `bitbyte report`, updated during the runs. */
#ifndef BB_PROGRAMS_RUNS_H
#define BB_PROGRAMS_RUNS_H

#include "exchange.h"

/* Watches the run directories in `dir` on a thread. Returns NULL if out of memory. */
bb_runs *bb_runs_open(const char *dir);
/* Ends the event streams; call before stopping the HTTP server. */
void bb_runs_stop(bb_runs *runs);
void bb_runs_close(bb_runs *runs);
/* Called after an exchange has ended, which may have been waiting for events. */
void bb_runs_leave(bb_exchange *x);

enum MHD_Result bb_runs_page(bb_exchange *x);
enum MHD_Result bb_runs_script(bb_exchange *x);
enum MHD_Result bb_runs_list(bb_exchange *x);
/* Returns the content of the page's <main>, for each `run` in the query. */
enum MHD_Result bb_runs_main(bb_exchange *x);
enum MHD_Result bb_runs_events(bb_exchange *x);

#endif
