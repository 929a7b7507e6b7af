// SPDX-License-Identifier: MIT
/* Writes a page that colors each character of a text by how surprising the model found it. One file, without scripts. */
#ifndef BB_PROGRAMS_SCORING_PAGE_H
#define BB_PROGRAMS_SCORING_PAGE_H

#include <stdio.h>

#include "rows.h"

void bb_score_page_begin(FILE *page, const char *model);
/* The row must have byte_bits and byte_ranks. */
void bb_score_page_add(FILE *page, const bb_score_row *row);
void bb_score_page_end(FILE *page);

#endif
