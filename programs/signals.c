// SPDX-License-Identifier: MIT
/* SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the program at once. */
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static volatile int received; /* the first signal's number */
static void (*volatile first_action)(void *user);
static void *volatile first_user;
static const char *volatile first_message;

static void say(const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = write(STDERR_FILENO, text, left);
        if (n <= 0) return;
        text += n;
        left -= (size_t)n;
    }
}

static void on_signal(int number) {
    if (received) _exit(128 + number);
    int saved_errno = errno;
    received = number;
    if (first_message) say(first_message);
    if (first_action) first_action(first_user);
    errno = saved_errno;
}

static void on_interrupt(int number) { received = number; }

static void handle(int number, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    sigaction(number, &action, NULL);
}

void bb_signals_install(void (*on_first)(void *user), void *user, const char *message) {
    first_user = user;
    first_message = message;
    first_action = on_first;
    handle(SIGINT, on_signal);
    handle(SIGTERM, on_signal);
}

void bb_signals_catch_interrupts(void) {
    received = 0;
    handle(SIGTERM, SIG_DFL);
    handle(SIGINT, on_interrupt);
}

void bb_signals_uninstall(void) {
    handle(SIGINT, SIG_DFL);
    handle(SIGTERM, SIG_DFL);
    received = 0;
}

void bb_signals_release(void) { first_action = NULL; }

const volatile int *bb_signals_stop(void) { return &received; }

int bb_signals_exit_status(void) { return received ? 128 + received : 0; }
