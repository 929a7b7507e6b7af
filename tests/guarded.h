// SPDX-License-Identifier: MIT
/* A test device: ref, with memory that is not the host's. Its pointers are in pages without access rights, so a host access
 * ends the test with SIGSEGV; only entries of the operation table reach the real memory. Each entry checks that every pointer
 * that it is given, with all that it will read or write there, lies within one live allocation, and otherwise aborts with the
 * entry and the argument. Code that passes on it also works on a device across a bus, except for timing. */
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
