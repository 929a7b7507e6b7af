// SPDX-License-Identifier: MIT
/* The dashboard of training runs: a page with the pictures of `bitbyte report`, which go on as the runs do. */
#ifndef BB_PROGRAMS_RUNS_H
#define BB_PROGRAMS_RUNS_H

#include "exchange.h"

/* Follows the run directories in `dir`, in a thread. NULL: out of memory. */
bb_runs *bb_runs_open(const char *dir);
/* Ends the streams of events, before the HTTP server is stopped. */
void bb_runs_stop(bb_runs *runs);
void bb_runs_close(bb_runs *runs);
/* An exchange has ended that may be among those that wait for events. */
void bb_runs_leave(bb_exchange *x);

enum MHD_Result bb_runs_page(bb_exchange *x);
enum MHD_Result bb_runs_script(bb_exchange *x);
enum MHD_Result bb_runs_list(bb_exchange *x);
/* What stands in the page's <main>, for each `run` of the query. */
enum MHD_Result bb_runs_main(bb_exchange *x);
enum MHD_Result bb_runs_events(bb_exchange *x);

#endif
