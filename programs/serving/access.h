// SPDX-License-Identifier: MIT
/* Who may ask: by the name that the server is called by, the page that asks, and the key. */
#ifndef BB_PROGRAMS_ACCESS_H
#define BB_PROGRAMS_ACCESS_H

#include "exchange.h"

/* open: without a key. False: `error` says why not. */
bool bb_access_check(const bb_exchange *x, bool open, bb_api_error *error);

#endif
