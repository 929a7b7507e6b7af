// SPDX-License-Identifier: MIT
/* Access control: by the host name of the request, the origin of the page, and the key. */
#ifndef BB_PROGRAMS_ACCESS_H
#define BB_PROGRAMS_ACCESS_H

#include "exchange.h"

/* open: no key required. Returns false with the reason in `error`. */
bool bb_access_check(const bb_exchange *x, bool open, bb_api_error *error);

#endif
