// SPDX-License-Identifier: MIT
/* bitbyte report: a page on training runs, or one plot of them. */
#include <errno.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "replacement.h"
#include "reporting/page.h"
#include "reporting/png.h"

typedef enum report_format { REPORT_HTML, REPORT_SVG, REPORT_PNG, REPORT_CSV } report_format;
static const char *const formats[] = {
    [REPORT_HTML] = "html", [REPORT_SVG] = "svg", [REPORT_PNG] = "png", [REPORT_CSV] = "csv", NULL};

typedef struct report_args {
    bb_cli_list runs;
    const char *out;
    int format, plot, x;
    double smoothing;
    bool log_x, log_y;
} report_args;

static const bb_cli_option options[] = {
    {.help = "Runs and output"},
    {.name = "runs",
     .type = BB_CLI_LIST,
     .offset = offsetof(report_args, runs),
     .value = "RUN",
     .help = "run directories; plots show them together",
     .position = 1,
     .required = true},
    {.name = "out",
     .letter = 'o',
     .type = BB_CLI_STRING,
     .offset = offsetof(report_args, out),
     .value = "FILE",
     .help = "output file, replaced if it exists; -: standard output",
     .default_text = "report.html; with another --format, standard output"},
    {.name = "format",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(report_args, format),
     .choices = formats,
     .help = "html: one page with all plots, the runs' options, samples, and shares of -1, 0 and +1 in the weights; it is "
             "self-contained and has no scripts. svg, png, csv: one plot; png needs rsvg-convert, Debian's librsvg2-bin"},
    {.help = "Plots"},
    {.name = "plot",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(report_args, plot),
     .choices = bb_metric_names,
     .help = "the plot of svg, png and csv"},
    {.name = "x",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(report_args, x),
     .choices = bb_axis_names,
     .help = "horizontal axis: steps, bytes trained on, or time spent training"},
    {.name = "smooth",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(report_args, smoothing),
     .value = "X",
     .help = "weight of earlier values in the exponential moving average, drawn over the raw values; 0: no smoothing",
     .range = BB_CLI_FROM_TO(0, 0.9999)},
    {.name = "log_x", .type = BB_CLI_FLAG, .offset = offsetof(report_args, log_x), .help = "logarithmic horizontal axis"},
    {.name = "log_y",
     .type = BB_CLI_FLAG,
     .offset = offsetof(report_args, log_y),
     .help = "logarithmic vertical axis; the page can switch"},
};

static const bb_cli_command command = {
    .name = "report",
    .summary = "draws training runs from their metrics.jsonl, as a page to view and share, or as a single plot.",
    .usage = "RUN… [--out FILE] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte report runs/small --out report.html\n"
                "  bitbyte report runs/a runs/b --x bytes --log_y --out both.html\n"
                "  bitbyte report runs/a runs/b --format svg --plot val_bpb > val.svg\n"
                "  bitbyte report runs/a --format csv --plot loss --smooth 0.9\n",
};

static bb_status fail_file(bb_error *err, const char *path, const char *what) {
    snprintf(err->message, sizeof err->message, "%.800s: %s: %s", path, what, strerror(errno));
    return err->code = BB_ERR_IO;
}

static bb_status write_png(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *plot, bb_error *err) {
    FILE *svg = tmpfile();
    if (!svg) return fail_file(err, "a temporary file", "cannot write");
    bb_plot_svg(svg, runs, count, plot);
    bb_status status = bb_png_write(svg, out, err);
    (void)fclose(svg);
    return status;
}

static bb_status write_report(FILE *out, const report_args *args, const bb_run_log *runs, int count, bb_error *err) {
    bb_plot_options plot = {.metric = (bb_metric)args->plot,
                            .x = (bb_axis)args->x,
                            .smoothing = args->smoothing,
                            .log_x = args->log_x,
                            .log_y = args->log_y,
                            .standalone = true};
    const bb_page_options page = {.x = plot.x, .smoothing = plot.smoothing, .log_x = plot.log_x, .log_y = plot.log_y};
    if (args->format == REPORT_HTML)
        bb_page_html(out, runs, count, &page);
    else if (args->format == REPORT_SVG)
        bb_plot_svg(out, runs, count, &plot);
    else if (args->format == REPORT_CSV)
        bb_plot_csv(out, runs, count, &plot);
    else
        return write_png(out, runs, count, &plot, err);
    return BB_OK;
}

static bb_status write_file(const char *path, const report_args *args, const bb_run_log *runs, int count, bb_error *err) {
    bb_replacement out;
    bb_status status = bb_output_check(path, err);
    if (status == BB_OK) status = bb_replacement_open_stream(&out, path, err);
    if (status != BB_OK) return status;
    return bb_replacement_close(&out, write_report(out.stream, args, runs, count, err), err);
}

static int report(const report_args *args) {
    enum { MAX_RUNS = 64 };
    bb_run_log runs[MAX_RUNS];
    bb_error err;
    bb_status status = BB_OK;
    int count = 0;
    if (args->runs.count > MAX_RUNS)
        return bb_cli_usage_error(&command, "%d runs: expected at most %d", args->runs.count, MAX_RUNS);
    for (; count < args->runs.count && status == BB_OK; count += status == BB_OK)
        status = bb_run_log_read(args->runs.items[count], &runs[count], &err);
    const char *out = args->out ? args->out : args->format == REPORT_HTML ? "report.html" : "-";
    if (status == BB_OK && strcmp(out, "-") == 0) {
        status = write_report(stdout, args, runs, count, &err);
    } else if (status == BB_OK) {
        status = write_file(out, args, runs, count, &err);
        if (status == BB_OK) printf("%s: %d run%s\n", out, count, count == 1 ? "" : "s");
    }
    for (int i = 0; i < count; i++) bb_run_log_free(&runs[i]);
    return status == BB_OK ? BB_EXIT_OK : bb_cli_fail(&command, &err);
}

int bb_cmd_report(int argc, char **argv) {
    report_args args = {.smoothing = 0.9};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) {
        if (args.format == REPORT_HTML) bb_cli_unused(&cli, "plot", "the page has all plots; another --format takes one");
        if (args.format == REPORT_CSV) {
            static const char *const drawn[] = {"x", "log_x", "log_y"};
            for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++)
                bb_cli_unused(&cli, drawn[i], "--format csv has all three as columns and no axis");
        }
        exit_status = report(&args);
    }
    bb_cli_free(&cli);
    return exit_status;
}
