// SPDX-License-Identifier: MIT
/* Standard input, output and error: closed or non-blocking descriptors. */
#include "standard_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#include "signals.h"

/* open() uses the lowest free number, so ascending order gives each descriptor its own. */
static void fill_closed_descriptors(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd) _exit(1);
}

/* O_NONBLOCK belongs to the open file, which other processes share and may change at any time: clearing it would affect them,
 * and might not last. So each call handles EAGAIN. */
static void wait_for_room(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    (void)poll(&wait, 1, -1); /* an error shows at the next read or write */
}

/* A stop request is a read error. */
static ssize_t stream_read(void *cookie, char *buffer, size_t size) {
    int fd = (int)(intptr_t)cookie;
    while (bb_signals_wait(fd, POLLIN)) {
        ssize_t n = read(fd, buffer, size);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return n;
    }
    errno = EINTR;
    return -1;
}

/* stdio treats a short count as an error. */
static ssize_t stream_write(void *cookie, const char *data, size_t size) {
    int fd = (int)(intptr_t)cookie;
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(fd, data + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            wait_for_room(fd);
        else if (errno != EINTR)
            break;
    }
    return (ssize_t)done;
}

static void replace(FILE **stream, int fd, const char *mode, int buffering) {
    const cookie_io_functions_t functions = {.read = stream_read, .write = stream_write};
    FILE *file = fopencookie((void *)(intptr_t)fd, mode, functions); /* NULL: out of memory; the old stream stays in use */
    if (!file) return;
    setvbuf(file, NULL, buffering, 0);
    *stream = file;
}

void bb_standard_streams_open(void) {
    fill_closed_descriptors();
    replace(&stdin, STDIN_FILENO, "r", _IOFBF);
    replace(&stdout, STDOUT_FILENO, "w", isatty(STDOUT_FILENO) == 1 ? _IOLBF : _IOFBF);
    replace(&stderr, STDERR_FILENO, "w", _IONBF);
}

int bb_standard_descriptor(const FILE *stream) { return stream == stderr ? STDERR_FILENO : STDOUT_FILENO; }
