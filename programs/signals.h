// SPDX-License-Identifier: MIT
/* SIGINT, SIGTERM, SIGHUP (unless it was ignored at the start) and SIGXCPU: the first asks for an orderly stop; a second SIGINT or
 * SIGTERM ends the program at once. SIGUSR1 and SIGUSR2 ask for a checkpoint. */
#ifndef BB_PROGRAMS_SIGNALS_H
#define BB_PROGRAMS_SIGNALS_H

/* on_first (may be NULL) runs in the handler, with `user`: it and `message`'s printing are async-signal-safe only.
 * message: written to stderr at the first signal, may be NULL. */
void bb_signals_install(void (*on_first)(void *user), void *user, const char *message);
/* From here on SIGUSR1 and SIGUSR2 run `action` in their handler, or do nothing where it is NULL. */
void bb_signals_on_save(void (*action)(void *user), void *user);
/* From here on SIGINT, however often it comes, is a stop request and nothing else; the others end the program. */
void bb_signals_catch_interrupts(void);
/* All end the program again as they do by default, and what came is forgotten. */
void bb_signals_uninstall(void);
/* From here on signals no longer call what was given: before `user` goes. */
void bb_signals_release(void);
/* Becomes non-zero at the first signal: what the library's `stop` fields want. */
const volatile int *bb_signals_stop(void);
/* 128 + the signal that came, 0 when none did. */
int bb_signals_exit_status(void);

#endif
