// SPDX-License-Identifier: MIT
/* Signals that request an orderly stop or a checkpoint. */
#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static volatile int received; /* number of the first signal */
static void (*volatile first_action)(void *user);
static void *volatile first_user;
static const char *volatile first_message;
static volatile sig_atomic_t urged; /* set after SIGINT or SIGTERM */
static void (*volatile save_action)(void *user);
static void *volatile save_user;

static void say(const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = write(STDERR_FILENO, text, left);
        if (n <= 0) return;
        text += n;
        left -= (size_t)n;
    }
}

/* SIGHUP and SIGXCPU may repeat by themselves, and the end of a session sends SIGHUP and SIGTERM. So only a second SIGINT or
 * SIGTERM ends the program immediately. */
static void on_signal(int number) {
    bool urges = number == SIGINT || number == SIGTERM;
    if (urges && urged) _exit(128 + number);
    urged = urged || urges;
    if (received) return;
    int saved_errno = errno;
    received = number;
    if (first_message) say(first_message);
    if (first_action) first_action(first_user);
    errno = saved_errno;
}

static void on_save(int number) {
    (void)number;
    int saved_errno = errno;
    if (save_action) save_action(save_user);
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
    sigaddset(&action.sa_mask, SIGHUP);
    sigaddset(&action.sa_mask, SIGXCPU);
    sigaction(number, &action, NULL);
}

/* Respects nohup. */
static void handle_unless_ignored(int number, void (*handler)(int)) {
    struct sigaction now;
    if (sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN) return;
    handle(number, handler);
}

void bb_signals_install(void (*on_first)(void *user), void *user, const char *message) {
    first_user = user;
    first_message = message;
    first_action = on_first;
    handle(SIGINT, on_signal);
    handle(SIGTERM, on_signal);
    handle(SIGXCPU, on_signal);
    handle_unless_ignored(SIGHUP, on_signal);
}

void bb_signals_on_save(void (*action)(void *user), void *user) {
    save_action = NULL;
    save_user = user;
    save_action = action;
    handle(SIGUSR1, on_save);
    handle(SIGUSR2, on_save);
}

void bb_signals_catch_interrupts(void) {
    received = urged = 0;
    handle(SIGTERM, SIG_DFL);
    handle(SIGXCPU, SIG_DFL);
    handle_unless_ignored(SIGHUP, SIG_DFL);
    handle(SIGINT, on_interrupt);
}

void bb_signals_uninstall(void) {
    handle(SIGINT, SIG_DFL);
    handle(SIGTERM, SIG_DFL);
    handle(SIGXCPU, SIG_DFL);
    handle_unless_ignored(SIGHUP, SIG_DFL);
    received = urged = 0;
}

void bb_signals_release(void) { first_action = save_action = NULL; }

const volatile int *bb_signals_stop(void) { return &received; }

bool bb_signals_wait(int fd, short events) {
    enum { CHECK_MS = 100 };
    struct pollfd wait = {.fd = fd, .events = events};
    while (!received) {
        int ready = poll(&wait, 1, CHECK_MS);
        if (ready > 0 || (ready < 0 && errno != EINTR && errno != EAGAIN))
            return true; /* an error shows at the next read or write */
    }
    return false;
}

int bb_signals_exit_status(void) { return received ? 128 + received : 0; }
