// SPDX-License-Identifier: MIT
/* Progress output: one live line on a terminal, plain lines elsewhere. Also formats quantities. */
#include "progress.h"

#include <math.h>
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

/* An MPI launcher gives its processes a pseudo-terminal whose output may go to a file. */
static bool launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

/* The first of these variables that is set determines the encoding; POSIX, "Environment variables". */
static bool takes_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0]) return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
    }
    return false;
}

void bb_progress_open(bb_progress *progress, FILE *stream, double plain_interval) {
    const char *term = getenv("TERM");
    progress->stream = stream;
    progress->utf8 = takes_utf8();
    progress->start = 0;
    progress->terminal = isatty(bb_standard_descriptor(stream)) && (!term || strcmp(term, "dumb") != 0) && !launched();
    progress->shown = 0;
    progress->plain_interval = plain_interval;
    progress->last = progress->terminal ? 0 : bb_monotonic_seconds();
}

static int terminal_width(FILE *stream) {
    struct winsize size;
    if (ioctl(bb_standard_descriptor(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

/* Computes the bytes and columns of the part of a line that fits. A character counts as one column. */
static int fitting(const char *line, int width, int *columns) {
    int bytes = 0;
    *columns = 0;
    while (line[bytes]) {
        int next = bytes + 1;
        while (((unsigned char)line[next] & 0xC0) == 0x80) next++;
        if (*columns == width) break;
        bytes = next;
        ++*columns;
    }
    return bytes;
}

/* If the terminal became narrower than the line, the line was wrapped: the cursor returns to its beginning. */
static void erase(bb_progress *progress) {
    int width = terminal_width(progress->stream), up = progress->shown > 0 ? (progress->shown - 1) / width : 0;
    fputc('\r', progress->stream);
    if (up > 0) fprintf(progress->stream, "\033[%dA", up);
    fputs(up > 0 ? "\033[J" : "\033[K", progress->stream);
}

void bb_progress_clear(bb_progress *progress) {
    if (!progress->shown) return;
    erase(progress);
    fflush(progress->stream);
    progress->shown = 0;
}

static bool due(bb_progress *progress) {
    double now = bb_monotonic_seconds();
    double interval = progress->terminal ? 0.1 : progress->plain_interval;
    if (interval <= 0 || now - progress->last < interval) return false;
    progress->last = now;
    return true;
}

static void put_line(bb_progress *progress, const char *line) {
    if (progress->terminal) {
        int columns, bytes = fitting(line, terminal_width(progress->stream) - 1, &columns);
        erase(progress);
        fprintf(progress->stream, "%.*s", bytes, line);
        progress->shown = columns;
    } else {
        fprintf(progress->stream, "%s\n", line);
    }
    fflush(progress->stream);
}

void bb_progress_update(bb_progress *progress, const char *fmt, ...) {
    if (!due(progress)) return;
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    put_line(progress, line);
}

/* "━━━━━━━─────"; in ASCII "=======-----". */
static void draw_bar(double part, bool utf8, char *out) {
    enum { CELLS = 20 };
    int full = (int)(part * CELLS);
    out[0] = '\0';
    for (int i = 0; i < CELLS; i++) strcat(out, i < full ? (utf8 ? "\u2501" : "=") : (utf8 ? "\u2500" : "-"));
}

void bb_progress_show(bb_progress *progress, const bb_progress_bar *bar) {
    if (progress->start <= 0) progress->start = bb_monotonic_seconds();
    if (!due(progress)) return;
    double part = bar->total > 0 ? fmin(fmax(bar->done / bar->total, 0), 1) : 0;
    double elapsed = bb_monotonic_seconds() - progress->start;
    double rate = bar->rate > 0 ? bar->rate : elapsed > 0.5 ? bar->bytes / elapsed : 0;
    double eta = bar->eta > 0 ? bar->eta : part > 0 && elapsed > 0.5 ? elapsed * (1 - part) / part : 0;
    char line[512], cells[64] = "", amount[48] = "", speed[48] = "", left[48] = "";
    if (bar->total > 0) {
        if (progress->terminal) draw_bar(part, progress->utf8, cells);
        snprintf(amount, sizeof amount, "%s%3.0f%%  ", cells[0] ? " " : "", floor(100 * part));
    }
    if (rate > 0) snprintf(speed, sizeof speed, "%s/s  ", bb_text_bytes((uint64_t)rate).s);
    if (eta > 0) snprintf(left, sizeof left, "%s left  ", bb_text_duration(eta).s);
    snprintf(line, sizeof line, "%s  %s%s%s%s%s", bar->what, cells, amount, speed, left, bar->detail ? bar->detail : "");
    put_line(progress, line);
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

void bb_spark_add(bb_spark *spark, double part, double value) {
    int i = (int)(fmin(fmax(part, 0), 1) * BB_SPARK_PARTS);
    if (i == BB_SPARK_PARTS) i--;
    if (!isfinite(value)) return;
    spark->sum[i] += value;
    spark->count[i]++;
}

bb_spark_text bb_spark_show(const bb_spark *spark) {
    static const char *const bars[] = {"\u2581", "\u2582", "\u2583", "\u2584", "\u2585", "\u2586", "\u2587", "\u2588"};
    bb_spark_text text = {""};
    double low = INFINITY, high = -INFINITY;
    int parts = 0;
    for (int i = 0; i < BB_SPARK_PARTS; i++) {
        if (!spark->count[i]) continue;
        double mean = spark->sum[i] / spark->count[i];
        low = fmin(low, mean);
        high = fmax(high, mean);
        parts++;
    }
    for (int i = 0; i < BB_SPARK_PARTS && parts > 1; i++)
        if (spark->count[i]) {
            double mean = spark->sum[i] / spark->count[i];
            strcat(text.s, bars[high > low ? (int)(7.999 * (mean - low) / (high - low)) : 0]);
        }
    return text;
}
