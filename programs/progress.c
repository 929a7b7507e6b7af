// SPDX-License-Identifier: MIT
/* Progress output: one live line on a terminal, plain lines elsewhere. Also formats quantities. */
#include "progress.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "standard_streams.h"

double bb_monotonic_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* An MPI launcher gives its processes a pseudo-terminal, whose output may go to a file. */
static bool launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

void bb_progress_open(bb_progress *progress, FILE *stream, double plain_interval) {
    const char *term = getenv("TERM");
    progress->stream = stream;
    progress->terminal = isatty(bb_standard_descriptor(stream)) && (!term || strcmp(term, "dumb") != 0) && !launched();
    progress->shown = false;
    progress->plain_interval = plain_interval;
    progress->last = progress->terminal ? 0 : bb_monotonic_seconds();
}

static int terminal_width(FILE *stream) {
    struct winsize size;
    if (ioctl(bb_standard_descriptor(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

void bb_progress_clear(bb_progress *progress) {
    if (!progress->shown) return;
    fputs("\r\033[K", progress->stream);
    fflush(progress->stream);
    progress->shown = false;
}

void bb_progress_update(bb_progress *progress, const char *fmt, ...) {
    double now = bb_monotonic_seconds();
    double interval = progress->terminal ? 0.1 : progress->plain_interval;
    if (interval <= 0 || now - progress->last < interval) return;
    progress->last = now;
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (progress->terminal) {
        /* A carriage return cannot erase a wrapped line. */
        fprintf(progress->stream, "\r\033[K%.*s", terminal_width(progress->stream) - 1, line);
        progress->shown = true;
    } else {
        fprintf(progress->stream, "%s\n", line);
    }
    fflush(progress->stream);
}

void bb_progress_line(bb_progress *progress, const char *fmt, ...) {
    bb_progress_clear(progress);
    va_list args;
    va_start(args, fmt);
    vfprintf(progress->stream, fmt, args);
    va_end(args);
    fputc('\n', progress->stream);
    fflush(progress->stream);
}

static bb_text scaled(double value, const char *const *units, int unit_count) {
    bb_text text;
    int unit = 0;
    /* 999.5 would be printed as 1000. */
    while (unit + 1 < unit_count && value >= (unit == 0 ? 1000 : 999.5)) {
        value /= 1000;
        unit++;
    }
    int decimals = unit == 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(text.s, sizeof text.s, "%.*f%s", decimals, value, units[unit]);
    return text;
}

bb_text bb_text_bytes(uint64_t bytes) {
    static const char *const units[] = {" B", " KB", " MB", " GB", " TB", " PB", " EB"};
    return scaled((double)bytes, units, (int)(sizeof units / sizeof *units));
}

bb_text bb_text_count(uint64_t count) {
    static const char *const units[] = {"", " K", " M", " G", " T", " P", " E"};
    return scaled((double)count, units, (int)(sizeof units / sizeof *units));
}

bb_text bb_text_duration(double seconds) {
    bb_text text;
    if (!(seconds >= 0) || seconds > 1e10) {
        snprintf(text.s, sizeof text.s, "?");
    } else if (seconds > 0 && seconds < 0.0995) {
        snprintf(text.s, sizeof text.s, "%.2gms", 1e3 * seconds);
    } else if (seconds < 9.95) {
        snprintf(text.s, sizeof text.s, "%.1fs", seconds);
    } else {
        int64_t whole = (int64_t)(seconds + 0.5);
        int64_t days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60;
        if (whole < 60)
            snprintf(text.s, sizeof text.s, "%ds", (int)whole);
        else if (whole < 3600)
            snprintf(text.s, sizeof text.s, "%dm %02ds", (int)minutes, (int)(whole % 60));
        else if (days == 0)
            snprintf(text.s, sizeof text.s, "%dh %02dm", (int)hours, (int)minutes);
        else
            snprintf(text.s, sizeof text.s, "%lldd %02dh", (long long)days, (int)hours);
    }
    return text;
}
