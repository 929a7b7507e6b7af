// SPDX-License-Identifier: MIT
/* What a rank can do about the program that started it. Open MPI's mpirun ends a job only when it has heard of every host; of
 * one that is cut off it waits for TCP to give up. A second SIGTERM makes it end at once, and a daemon of its on another host
 * too. And where mpirun itself is cut off, on a host without ranks, the job would train on, and its daemons wait for as long. */
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

/* The calls of is_one_of are system calls alone. */
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

/* Other launchers (srun, for one) end what they started by themselves. */
static bool is_open_mpi(pid_t process) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", NULL};
    return is_one_of(names, process);
}

/* One that Open MPI starts on hosts where mpirun itself is not. */
static bool is_daemon(pid_t process) {
    static const char *const names[] = {"orted", "prted", NULL};
    return is_one_of(names, process);
}

static void pause_seconds(int seconds) {
    struct timespec left = {.tv_sec = seconds};
    while (nanosleep(&left, &left) != 0) {
    }
}

/* A thread of its own asks: the answer may never come. It outlives the engine then, so what it uses is static; MPI is opened
 * once in a process. */
static pthread_t asker;
static bool asks;
static atomic_int answers;
static atomic_bool asked_enough;

static void *ask(void *user) {
    char port[MPI_MAX_PORT_NAME];
    while (!asked_enough) {
        /* Nobody published this name, and only mpirun knows that. No message of the engine's is moved: no lock. */
        MPI_Lookup_name("bitbyte", MPI_INFO_NULL, port);
        answers++;
        for (int i = 0; i < 10 && !asked_enough; i++) {
            struct timespec tenth = {.tv_nsec = 100000000};
            nanosleep(&tenth, NULL);
        }
    }
    return user;
}

void bb_mpi_ask_launcher(void) {
    if (!is_daemon(getppid())) return;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* a name that is not found is an error of this one */
    asked_enough = false;
    asks = pthread_create(&asker, NULL, ask, NULL) == 0;
}

int bb_mpi_launcher_answers(void) { return asks ? answers : -1; }

void bb_mpi_ask_no_more(void) {
    asked_enough = true;
    if (asks) pthread_join(asker, NULL);
    asks = false;
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
