// SPDX-License-Identifier: MIT
/* page.html and runs.js, which the build embeds into the program. */
#ifndef BB_PROGRAMS_SERVE_PAGE_H
#define BB_PROGRAMS_SERVE_PAGE_H

#include <stddef.h>

extern const unsigned char bb_serve_page[];
extern const size_t bb_serve_page_size;
extern const unsigned char bb_serve_runs[];
extern const size_t bb_serve_runs_size;

#endif
