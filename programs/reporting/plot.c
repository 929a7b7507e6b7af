// SPDX-License-Identifier: MIT
#include "plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 300, LEFT = 64, RIGHT = 16, TOP = 34, BOTTOM = 34, COLORS = 8, MAX_TICKS = 24 };
enum { INNER = WIDTH - LEFT - RIGHT, LEGEND_ROW = 16 };

/* No variables: programs other than browsers don't know them. Dark colours override light ones. */
const char bb_plot_style[] =
    ".bb{font:12px system-ui,sans-serif;max-width:100%;height:auto}.bb "
    "path{fill:none;stroke-linejoin:round;stroke-linecap:round}"
    ".bb .raw{stroke-width:1;opacity:.3}.bb .curve{stroke-width:1.6}.bb .key{stroke-width:3}.bb .point{stroke-width:5}"
    ".bb .end{text-anchor:end}.bb .mid{text-anchor:middle}.bb .title{font-weight:600;font-size:13px}"
    ".bb text{fill:#656d76}.bb .title{fill:#1f2328}.bb .card{fill:#fff}.bb .grid{stroke:#d8dee4}"
    ".bb .c0{stroke:#0969da}.bb .c1{stroke:#bc4c00}.bb .c2{stroke:#1a7f37}.bb .c3{stroke:#8250df}"
    ".bb .c4{stroke:#bf3989}.bb .c5{stroke:#9a6700}.bb .c6{stroke:#0e7490}.bb .c7{stroke:#57606a}"
    "@media (prefers-color-scheme:dark){"
    ".bb text{fill:#9198a1}.bb .title{fill:#e6edf3}.bb .card{fill:#0d1117}.bb .grid{stroke:#30363d}"
    ".bb .c0{stroke:#58a6ff}.bb .c1{stroke:#f0883e}.bb .c2{stroke:#3fb950}.bb .c3{stroke:#bc8cff}"
    ".bb .c4{stroke:#f778ba}.bb .c5{stroke:#d29922}.bb .c6{stroke:#39c5cf}.bb .c7{stroke:#8b949e}}";

void bb_html_text(FILE *out, const char *text) {
    for (const char *c = text; *c; c++) {
        if (*c == '&')
            fputs("&amp;", out);
        else if (*c == '<')
            fputs("&lt;", out);
        else if (*c == '>')
            fputs("&gt;", out);
        else if (*c == '"')
            fputs("&quot;", out);
        else if ((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t')
            fputs("\xEF\xBF\xBD", out); /* XML allows no control characters */
        else
            fputc(*c, out);
    }
}

/* ---- axes -------------------------------------------------------------------------------------------------------------- */

typedef struct axis {
    double min, max;
    bool log;
} axis;

/* Maps a value to 0 .. 1 within the axis. */
static double place(const axis *a, double v) {
    return a->log ? log(v / a->min) / log(a->max / a->min) : (v - a->min) / (a->max - a->min);
}

static void extend(axis *a, double v) {
    a->min = fmin(a->min, v);
    a->max = fmax(a->max, v);
}

/* An axis with one value or none needs a width, too. */
static void settle(axis *a, bool values) {
    if (a->min > a->max) *a = (axis){.min = a->log ? 1 : 0, .max = a->log ? 10 : 1, .log = a->log};
    if (values && !a->log) { /* curves do not touch the frame */
        double pad = 0.04 * (a->max - a->min);
        a->max += pad;
        a->min -= a->min >= 0 && a->min < pad ? a->min : pad;
    }
    if (a->max > a->min) return;
    double half = a->log ? 1 : fabs(a->min) > 0 ? 0.1 * fabs(a->min) : 1;
    a->min = a->log ? a->min / 1.5 : a->min - half;
    a->max = a->log ? a->max * 1.5 : a->max + half;
}

static int linear_ticks(const axis *a, double unit, double *ticks) {
    double rough = (a->max - a->min) / unit / 6, power = pow(10, floor(log10(rough)));
    double step = (rough / power <= 1 ? 1 : rough / power <= 2 ? 2 : rough / power <= 5 ? 5 : 10) * power * unit;
    int count = 0;
    for (double i = ceil(a->min / step); i * step <= a->max * (1 + 1e-12) && count < MAX_TICKS; i++) ticks[count++] = i * step;
    return count;
}

static int log_ticks(const axis *a, double unit, double *ticks) {
    enum { PARTS = 5 };
    static const int all[PARTS] = {1, 2, 3, 5, 7}, some[PARTS] = {1, 2, 5};
    double decades = log10(a->max / a->min);
    const int *parts = decades < 1.5 ? all : some;
    int part_count = decades < 1.5 ? PARTS : decades < 3 ? 3 : 1, every = 1 + (int)(decades / 10), count = 0;
    for (int k = (int)floor(log10(a->min)); pow(10, k) <= a->max && count < MAX_TICKS; k += every)
        for (int i = 0; i < part_count && count < MAX_TICKS; i++) {
            double v = parts[i] * pow(10, k);
            if (v >= a->min && v <= a->max) ticks[count++] = v;
        }
    return count >= 2 ? count : linear_ticks(a, unit, ticks);
}

/* Divisor and unit suffix of the numbers on an axis. */
typedef struct scale {
    double unit;
    const char *suffix;
} scale;

static scale scale_of(double max, bool time) {
    static const scale times[] = {{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}};
    static const scale numbers[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "K"}, {1, ""}};
    const scale *from = time ? times : numbers;
    int last = time ? 3 : 4, i = 0;
    while (i < last && max < (time ? 2 : 1) * from[i].unit) i++;
    scale s = from[i];
    if (!time && i == 3) s.unit = 1e3; /* 9000, then 10K */
    return s;
}

/* ---- curves ------------------------------------------------------------------------------------------------------------ */

typedef struct xy {
    double x, y;
} xy;

static bool usable(const bb_point *p, const bb_plot_options *o) {
    return (!o->log_x || p->at[o->x] > 0) && (!o->log_y || p->value > 0);
}

/* The exponential moving average of the values so far, with bias correction (Kingma and Ba, arXiv:1412.6980, section 3). */
typedef struct smooth {
    double sum, weight;
} smooth;

static double smooth_push(smooth *s, double factor, double value) {
    s->sum = factor * s->sum + (1 - factor) * value;
    s->weight = factor * s->weight + (1 - factor);
    return s->sum / s->weight;
}

static void put_path(FILE *out, const char *class, const xy *points, int count) {
    fprintf(out, "<path class=\"%s\" d=\"", class);
    for (int i = 0; i < count; i++) fprintf(out, "%c%.1f %.1f", i ? 'L' : 'M', points[i].x, points[i].y);
    fputs("\"/>", out);
}

/* Within a column of pixels only the lowest and the highest point are visible. */
static int thin(xy *points, int count) {
    int kept = 0;
    for (int i = 0; i < count;) {
        int low = i, high = i, end = i + 1;
        for (; end < count && floor(points[end].x) <= floor(points[i].x); end++) {
            if (points[end].y < points[low].y) low = end;
            if (points[end].y > points[high].y) high = end;
        }
        xy first = points[low < high ? low : high], second = points[low < high ? high : low];
        points[kept++] = first;
        if (low != high) points[kept++] = second;
        i = end;
    }
    return kept;
}

typedef struct frame {
    axis x, y;
    int top, height;
} frame;

static void put_curve(FILE *out, const bb_series *series, const frame *f, const bb_plot_options *o, int color) {
    xy *raw = calloc((size_t)series->count + 1, sizeof *raw), *mean = calloc((size_t)series->count + 1, sizeof *mean);
    smooth s = {0};
    int count = 0;
    for (int i = 0; raw && mean && i < series->count; i++) {
        const bb_point *p = &series->points[i];
        if (!usable(p, o)) continue;
        double x = LEFT + INNER * place(&f->x, p->at[o->x]);
        raw[count] = (xy){x, f->top + f->height * (1 - place(&f->y, p->value))};
        mean[count++] = (xy){x, f->top + f->height * (1 - place(&f->y, smooth_push(&s, o->smoothing, p->value)))};
    }
    fprintf(out, "<g class=\"c%d\">", color);
    if (count == 1) fprintf(out, "<path class=\"point\" d=\"M%.1f %.1fh.01\"/>", raw[0].x, raw[0].y);
    if (count > 1) {
        if (o->smoothing > 0) put_path(out, "raw", raw, thin(raw, count));
        put_path(out, "curve", mean, thin(mean, count));
    }
    fputs("</g>", out);
    free(raw);
    free(mean);
}

/* ---- the picture ------------------------------------------------------------------------------------------------------- */

static void put_ticks(FILE *out, const frame *f, const bb_plot_options *o) {
    double ticks[MAX_TICKS];
    scale s = scale_of(f->y.max, false);
    int count = f->y.log ? log_ticks(&f->y, s.unit, ticks) : linear_ticks(&f->y, s.unit, ticks);
    for (int i = 0; i < count; i++) {
        double y = f->top + f->height * (1 - place(&f->y, ticks[i]));
        fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT, y, y);
        fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">%.4g%s</text>", LEFT - 6, y + 4, ticks[i] / s.unit, s.suffix);
    }
    s = scale_of(f->x.max, o->x == BB_AXIS_TIME);
    count = f->x.log ? log_ticks(&f->x, s.unit, ticks) : linear_ticks(&f->x, s.unit, ticks);
    for (int i = 0; i < count; i++) {
        double x = LEFT + INNER * place(&f->x, ticks[i]);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x, x, f->top, f->top + f->height);
        bool edge = x > WIDTH - RIGHT - 16; /* a centered label would be clipped */
        fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%d\">%.4g%s</text>", edge ? "end" : "mid", x, f->top + f->height + 16,
                ticks[i] / s.unit, s.suffix);
    }
    fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%d\">%s</text>", WIDTH - RIGHT, f->top + f->height + 30,
            o->x == BB_AXIS_BYTES  ? "bytes trained on"
            : o->x == BB_AXIS_TIME ? "time"
                                   : "step");
}

static void put_legend(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *o, int top) {
    for (int r = 0; r < count; r++) {
        const bb_series *series = &runs[r].series[o->metric];
        int y = top + LEGEND_ROW * r;
        fprintf(out, "<path class=\"key c%d\" d=\"M%d %dh10\"/><text x=\"%d\" y=\"%d\">", r % COLORS, LEFT + 1, y - 4,
                LEFT + 18, y);
        bb_html_text(out, runs[r].name);
        if (series->count) {
            const bb_point *last = &series->points[series->count - 1];
            scale s = scale_of(last->value, false);
            fprintf(out, ": %.4g%s at step %.0f", last->value / s.unit, s.suffix, last->at[BB_AXIS_STEP]);
        } else {
            fputs(": no data", out);
        }
        fputs("</text>", out);
    }
}

void bb_plot_svg(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *o) {
    frame f = {.x = {.min = INFINITY, .max = -INFINITY, .log = o->log_x},
               .y = {.min = INFINITY, .max = -INFINITY, .log = o->log_y},
               .top = TOP,
               .height = HEIGHT - TOP - BOTTOM};
    for (int r = 0; r < count; r++)
        for (int i = 0; i < runs[r].series[o->metric].count; i++) {
            const bb_point *p = &runs[r].series[o->metric].points[i];
            if (!usable(p, o)) continue;
            extend(&f.x, p->at[o->x]);
            extend(&f.y, p->value);
        }
    settle(&f.x, false);
    settle(&f.y, true);
    int height = HEIGHT + 8 + LEGEND_ROW * count;
    fprintf(out, "<svg%s class=\"bb\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"%s\">",
            o->standalone ? " xmlns=\"http://www.w3.org/2000/svg\"" : "", WIDTH, height, WIDTH, height,
            bb_metric_titles[o->metric]);
    if (o->standalone) fprintf(out, "<style>%s</style>", bb_plot_style);
    fprintf(out, "<rect class=\"card\" width=\"%d\" height=\"%d\" rx=\"6\"/><text class=\"title\" x=\"%d\" y=\"20\">%s</text>",
            WIDTH, height, LEFT, bb_metric_titles[o->metric]);
    put_ticks(out, &f, o);
    for (int r = 0; r < count; r++) put_curve(out, &runs[r].series[o->metric], &f, o, r % COLORS);
    put_legend(out, runs, count, o, HEIGHT + 12);
    fputs("</svg>\n", out);
}

/* RFC 4180: in quotes, with quotes doubled. */
static void put_csv_text(FILE *out, const char *text) {
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"') fputc('"', out);
        fputc(*c, out);
    }
    fputc('"', out);
}

void bb_plot_csv(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *o) {
    fprintf(out, "run,step,bytes,seconds,%s%s\n", bb_metric_names[o->metric], o->smoothing > 0 ? ",smoothed" : "");
    for (int r = 0; r < count; r++) {
        smooth s = {0};
        for (int i = 0; i < runs[r].series[o->metric].count; i++) {
            const bb_point *p = &runs[r].series[o->metric].points[i];
            put_csv_text(out, runs[r].name);
            fprintf(out, ",%.0f,%.0f,%.6g,%.9g", p->at[BB_AXIS_STEP], p->at[BB_AXIS_BYTES], p->at[BB_AXIS_TIME], p->value);
            if (o->smoothing > 0) fprintf(out, ",%.9g", smooth_push(&s, o->smoothing, p->value));
            fputc('\n', out);
        }
    }
}
