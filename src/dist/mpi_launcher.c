// SPDX-License-Identifier: MIT
/* Watches and kills the launcher. Open MPI's mpirun ends a job only after hearing from every host; if one is cut off, it waits
 * for a TCP timeout. A second SIGTERM makes it, and its daemon on another host, exit immediately. And if mpirun itself is cut
 * off, on a host without ranks, the job would continue, and its daemons would wait as long. */
#ifdef BB_HAVE_MPI
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_engine.h"

/* Async-signal-safe: system calls only. */
static bool is_one_of(const char *const *names, pid_t process) {
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, name, sizeof name - 1);
    close(fd);
    for (; n > 0 && *names; names++)
        if (strncmp(name, *names, strlen(*names)) == 0) return true;
    return false;
}

/* Other launchers, such as srun, clean up by themselves. */
static bool is_open_mpi(pid_t process) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", NULL};
    return is_one_of(names, process);
}

/* Open MPI's daemon on hosts other than mpirun's. */
static bool is_daemon(pid_t process) {
    static const char *const names[] = {"orted", "prted", NULL};
    return is_one_of(names, process);
}

static void pause_seconds(int seconds) {
    struct timespec left = {.tv_sec = seconds};
    while (nanosleep(&left, &left) != 0) {
    }
}

/* A separate thread pings, since an answer may never come. It may outlive the engine, so its state is static; MPI is opened only
 * once per process. */
static pthread_t pinger;
static bool pinging;
static atomic_int answers;
static atomic_bool pinging_done;

static void *ping(void *user) {
    char port[MPI_MAX_PORT_NAME];
    while (!pinging_done) {
        /* Nobody publishes this name, and only mpirun can answer. This moves none of the engine's messages, so it needs no
         * lock. */
        MPI_Lookup_name("bitbyte", MPI_INFO_NULL, port);
        answers++;
        for (int i = 0; i < 10 && !pinging_done; i++) {
            struct timespec tenth = {.tv_nsec = 100000000};
            nanosleep(&tenth, NULL);
        }
    }
    return user;
}

void bb_mpi_ping_launcher(void) {
    if (!is_daemon(getppid())) return;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* an unknown name is reported on this communicator */
    pinging_done = false;
    pinging = pthread_create(&pinger, NULL, ping, NULL) == 0;
}

int bb_mpi_launcher_answers(void) { return pinging ? answers : -1; }

void bb_mpi_stop_pinging(void) {
    pinging_done = true;
    if (pinging) pthread_join(pinger, NULL);
    pinging = false;
}

void bb_mpi_end_launcher(int after_seconds) {
    pid_t launcher = getppid();
    int handle = (int)syscall(SYS_pidfd_open, launcher, 0); /* refers to this process, not to a later one with the same pid */
    if (handle < 0 || getppid() != launcher || !is_open_mpi(launcher)) return;
    /* The child outlives this process, which the launcher kills, and keeps no descriptor that the launcher waits for. It makes only
     * system calls: another thread may have held any lock at the fork. */
    if (_Fork() != 0) return;
    setsid();
    for (int fd = 0; fd < 4096; fd++)
        if (fd != handle) close(fd);
    pause_seconds(after_seconds);
    /* Process 1 of a container ignores SIGKILL from inside; Open MPI's exits at a second SIGTERM. */
    static const int signals[] = {SIGKILL, SIGTERM, SIGTERM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (syscall(SYS_pidfd_send_signal, handle, signals[i], NULL, 0) != 0) break;
        pause_seconds(1);
    }
    _exit(0);
}
#endif
