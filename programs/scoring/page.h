// SPDX-License-Identifier: MIT
/* A page that colours each character of a text by how surprising the model found it. One file, without scripts. */
#ifndef BB_PROGRAMS_SCORING_PAGE_H
#define BB_PROGRAMS_SCORING_PAGE_H

#include <stdio.h>

#include "rows.h"

void bb_score_page_begin(FILE *page, const char *model);
/* The row has byte_bits and byte_ranks. */
void bb_score_page_add(FILE *page, const bb_score_row *row);
void bb_score_page_end(FILE *page);

#endif
