/* What a rank can do about the program that started it. Open MPI's mpirun ends a job only when it has heard of every host; of
 * one that is cut off it waits for TCP to give up. A second SIGTERM makes it end at once, and a daemon of its on another host
 * too. SPDX-License-Identifier: MIT */
#ifdef BB_HAVE_MPI
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

/* Other launchers (srun, for one) end what they started by themselves. */
static bool is_open_mpi(pid_t process) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, name, sizeof name - 1);
    close(fd);
    for (size_t i = 0; n > 0 && i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
    return false;
}

static void pause_seconds(int seconds) {
    struct timespec left = {.tv_sec = seconds};
    while (nanosleep(&left, &left) != 0) {
    }
}

void bb_mpi_end_launcher(int after_seconds) {
    pid_t launcher = getppid();
    int handle = (int)syscall(SYS_pidfd_open, launcher, 0); /* names that process, not one that gets its number later */
    if (handle < 0 || getppid() != launcher || !is_open_mpi(launcher)) return;
    /* The child outlives this process, which the launcher ends, and holds nothing of it that the launcher waits for. It makes
     * system calls alone: other threads may have held any lock. */
    if (_Fork() != 0) return;
    setsid();
    for (int fd = 0; fd < 4096; fd++)
        if (fd != handle) close(fd);
    pause_seconds(after_seconds);
    /* A container's first process takes no SIGKILL from inside; Open MPI's ends at a second SIGTERM. */
    static const int signals[] = {SIGKILL, SIGTERM, SIGTERM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (syscall(SYS_pidfd_send_signal, handle, signals[i], NULL, 0) != 0) break;
        pause_seconds(1);
    }
    _exit(0);
}
#endif
