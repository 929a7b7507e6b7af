// SPDX-License-Identifier: MIT
/* The first SIGINT, SIGTERM, SIGHUP (unless ignored at start) or SIGXCPU requests an orderly stop. A second SIGINT or SIGTERM
 * ends the program at once. SIGUSR1 and SIGUSR2 request a checkpoint. */
#ifndef BB_PROGRAMS_SIGNALS_H
#define BB_PROGRAMS_SIGNALS_H

#include <stdbool.h>

/* on_first (may be NULL) is called in the handler with `user` and must be async-signal-safe.
 * message (may be NULL): printed on stderr at the first signal. */
void bb_signals_install(void (*on_first)(void *user), void *user, const char *message);
/* SIGUSR1 and SIGUSR2 call `action` in the handler; NULL: ignored. */
void bb_signals_on_save(void (*action)(void *user), void *user);
/* Every SIGINT is only a stop request; the other signals end the program. */
void bb_signals_catch_interrupts(void);
/* Restores the default actions and clears received signals. */
void bb_signals_uninstall(void);
/* After this call signals no longer call the actions. Must be called before `user` is freed. */
void bb_signals_release(void);
/* Nonzero after the first signal; for the `stop` fields of the library. */
const volatile int *bb_signals_stop(void);
/* Waits until the descriptor is ready for poll's `events`. Returns false if a signal requests a stop: a read that waits would not
 * return, because system calls are restarted. */
bool bb_signals_wait(int fd, short events);
/* Returns 128 + the received signal, or 0. */
int bb_signals_exit_status(void);

#endif
