// SPDX-License-Identifier: MIT
#include "metrics_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "progress.h"

enum { MAX_WAITING = 1 << 20, END_SECONDS = 10 };

extern char **environ;

bool bb_metrics_command_open(bb_metrics_command *command, const char *text) {
    int ends[2], failure;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t defaults;
    char shell[] = "sh", option[] = "-c", *copy = strdup(text);
    char *arguments[] = {shell, option, copy, NULL};
    *command = (bb_metrics_command){.fd = -1};
    if (!copy || pipe2(ends, O_CLOEXEC) != 0) {
        free(copy);
        return false;
    }
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* this program ignores it, and the command would inherit that */
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO); /* standard output is reserved for --json */
    failure = posix_spawn(&command->pid, "/bin/sh", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    free(copy);
    close(ends[0]);
    command->fd = ends[1];
    if (failure == 0) failure = fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
    if (failure == 0) return true;
    close(ends[1]);
    *command = (bb_metrics_command){.fd = -1};
    errno = failure;
    return false;
}

/* Writes as much as the pipe accepts now. */
static void push(bb_metrics_command *c) {
    size_t done = 0;
    while (done < c->size && !c->closed) {
        ssize_t n = write(c->fd, c->waiting + done, c->size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            c->closed = true;
    }
    if (done) memmove(c->waiting, c->waiting + done, c->size - done);
    c->size -= done;
}

bool bb_metrics_command_send(bb_metrics_command *c, const char *line) {
    size_t length = strlen(line);
    if (!c->pid || c->closed) return true;
    char *grown = c->size + length + 1 > MAX_WAITING ? NULL : realloc(c->waiting, c->size + length + 1);
    if (grown) {
        c->waiting = grown;
        memcpy(grown + c->size, line, length + 1);
        grown[c->size + length] = '\n';
        c->size += length + 1;
    } else {
        c->dropped++;
    }
    push(c);
    return !c->closed;
}

int bb_metrics_command_close(bb_metrics_command *c) {
    double end = bb_monotonic_seconds() + END_SECONDS;
    int status = 0;
    pid_t ended = 0;
    if (!c->pid) return 0;
    while (c->size > 0 && !c->closed && bb_monotonic_seconds() < end) {
        struct pollfd ready = {.fd = c->fd, .events = POLLOUT};
        (void)poll(&ready, 1, 100);
        push(c);
    }
    close(c->fd);
    while ((ended = waitpid(c->pid, &status, WNOHANG)) == 0 && bb_monotonic_seconds() < end)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    free(c->waiting);
    *c = (bb_metrics_command){.fd = -1, .dropped = c->dropped};
    if (ended <= 0) return ended < 0 ? 0 : -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
