// SPDX-License-Identifier: MIT
/* A device for tests: ref, with memory that is not the host's. Its pointers lie in pages that nobody may touch, so a host access ends
 * the test with SIGSEGV; only entries of the operation table reach what is behind them. Each entry checks that every pointer it is
 * given, with all that it will read or write there, lies within one live allocation, and aborts with the entry and the argument
 * otherwise. What passes on it passes on a device across a bus, but for timing. */
#ifndef BB_TESTS_GUARDED_H
#define BB_TESTS_GUARDED_H

#include <stdbool.h>
#include <stddef.h>

#include "bitbyte.h"

/* Makes bb_device_open know the name "guarded". Once a program. */
void guarded_register(void);
/* Whether p lies in memory that this device gave. */
bool guarded_owns(const bb_device *device, const void *p);
/* Calls of copy_in and copy_out, act_in and act_out so far. */
int guarded_copies(const bb_device *device);

#endif
