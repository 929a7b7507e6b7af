// SPDX-License-Identifier: MIT
/* PNG by rsvg-convert, a program that may be installed. */
#ifndef BB_PROGRAMS_PNG_H
#define BB_PROGRAMS_PNG_H

#include <stdio.h>

#include "bitbyte.h"

/* Writes the picture in `svg`, a file that has been written and not been rewound, twice as large. BB_ERR_UNSUPPORTED: rsvg-convert is
 * not installed. */
bb_status bb_png_write(FILE *svg, FILE *out, bb_error *err);

#endif
