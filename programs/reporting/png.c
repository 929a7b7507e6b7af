// SPDX-License-Identifier: MIT
#include "png.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM "rsvg-convert"

extern char **environ;

static bb_status fail(bb_error *err, bb_status code, const char *what, int number) {
    snprintf(err->message, sizeof err->message, "--format png: %s: %s", what, strerror(number));
    return err->code = code;
}

bb_status bb_png_write(FILE *svg, FILE *out, bb_error *err) {
    char program[] = PROGRAM, option[] = "--zoom", zoom[] = "2";
    char *arguments[] = {program, option, zoom, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    if (fflush(svg) != 0 || fflush(out) != 0 || lseek(fileno(svg), 0, SEEK_SET) != 0)
        return fail(err, BB_ERR_IO, "cannot write", errno);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(svg), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(out), STDOUT_FILENO);
    int failure = posix_spawnp(&child, PROGRAM, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure != 0)
        return fail(err, failure == ENOENT ? BB_ERR_UNSUPPORTED : BB_ERR_IO, PROGRAM " (Debian's librsvg2-bin) cannot be run",
                    failure);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return fail(err, BB_ERR_IO, PROGRAM, errno);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return BB_OK;
    snprintf(err->message, sizeof err->message, "--format png: " PROGRAM " failed");
    return err->code = BB_ERR_IO;
}
