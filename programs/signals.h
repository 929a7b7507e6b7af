// SPDX-License-Identifier: MIT
/* SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the program at once. */
#ifndef BB_PROGRAMS_SIGNALS_H
#define BB_PROGRAMS_SIGNALS_H

/* on_first (may be NULL) runs in the handler, with `user`: it and `message`'s printing are async-signal-safe only.
 * message: written to stderr at the first signal, may be NULL. */
void bb_signals_install(void (*on_first)(void *user), void *user, const char *message);
/* From here on SIGINT, however often it comes, is a stop request and nothing else; SIGTERM ends the program. */
void bb_signals_catch_interrupts(void);
/* Both end the program again as they do by default, and what came is forgotten. */
void bb_signals_uninstall(void);
/* From here on a signal no longer calls on_first: before `user` goes. */
void bb_signals_release(void);
/* Becomes non-zero at the first signal: what the library's `stop` fields want. */
const volatile int *bb_signals_stop(void);
/* 128 + the signal that came, 0 when none did. */
int bb_signals_exit_status(void);

#endif
