// SPDX-License-Identifier: MIT
#include "page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../progress.h"

enum { MAX_SAMPLES = 40 };

/* Radio buttons and the rules below choose the axes: every plot is present six times, and one of them is shown. */
static const char style[] =
    "*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1520px;padding:16px;"
    "background:#f6f8fa;color:#1f2328}h1{font-size:20px;margin:4px 0 12px}h2{font-size:17px;margin:24px 0 8px}"
    ".controls{display:inline-block;margin-right:20px}label{margin:0 6px 0 2px}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:12px;margin-top:12px}"
    ".plot>svg{display:none;width:100%}"
    "table{border-collapse:collapse;width:100%;background:#fff}td,th{border:1px solid #d8dee4;padding:4px 8px;"
    "text-align:left;vertical-align:top;overflow-wrap:anywhere}th{font-weight:600}.wide{overflow-x:auto}"
    "pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}"
    "svg.shares{max-width:100%;height:auto;font:11px system-ui,sans-serif}.minus{fill:#0969da}.zero{fill:#d0d7de}"
    ".plus{fill:#bc4c00}.shares text{fill:#656d76}"
    "@media (prefers-color-scheme:dark){body{background:#010409;color:#e6edf3}table{background:#0d1117}"
    "td,th{border-color:#30363d}.minus{fill:#58a6ff}.zero{fill:#30363d}.plus{fill:#f0883e}.shares text{fill:#9198a1}}";

void bb_page_style(FILE *out) {
    fprintf(out, "%s%s", style, bb_plot_style);
    for (int x = 0; x < BB_AXES; x++)
        for (int log = 0; log < 2; log++)
            fprintf(out, "#x-%s:checked~%s~main .x-%s.%s{display:block}", bb_axis_names[x],
                    log ? "#log-y:checked" : "#log-y:not(:checked)", bb_axis_names[x], log ? "log" : "lin");
}

void bb_page_controls(FILE *out, const bb_page_options *o) {
    fputs("<b>Over</b> ", out);
    for (int x = 0; x < BB_AXES; x++)
        fprintf(out, "<input type=\"radio\" name=\"x\" id=\"x-%s\"%s><label for=\"x-%s\">%s</label>", bb_axis_names[x],
                o->x == (bb_axis)x ? " checked" : "", bb_axis_names[x], bb_axis_names[x]);
    fprintf(out, "<input type=\"checkbox\" id=\"log-y\"%s><label for=\"log-y\">logarithmic</label>\n",
            o->log_y ? " checked" : "");
}

/* ---- what was trained -------------------------------------------------------------------------------------------------- */

static void put_value(FILE *out, const json_t *value) {
    if (json_is_string(value)) {
        bb_html_text(out, json_string_value(value));
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    bb_html_text(out, text && !json_is_null(value) ? text : "");
    free(text);
}

static int config_int(const json_t *config, const char *key) { return (int)json_integer_value(json_object_get(config, key)); }

/* Returns the number of parameters according to config.json, or 0 if it does not say. */
static uint64_t parameters_of(const json_t *run) {
    bb_config c;
    bb_config_default(&c);
    c.n_layer = config_int(run, "n_layer");
    c.d_model = config_int(run, "d_model");
    c.n_head = config_int(run, "n_head");
    c.n_kv_head = config_int(run, "n_kv_head");
    c.d_ff = config_int(run, "d_ff");
    const char *arch = json_string_value(json_object_get(run, "arch")); /* NULL: older than the option */
    if (arch && strcmp(arch, "plus") == 0) {
        c.ngram_max = config_int(run, "ngram_max");
        c.ngram_bits = config_int(run, "ngram_bits");
    }
    bb_error unsaid;
    return bb_config_check(&c, &unsaid) == BB_OK ? bb_config_parameters(&c) : 0;
}

static void put_best(FILE *out, const bb_series *val) {
    const bb_point *best = NULL;
    for (int i = 0; i < val->count; i++)
        if (!best || val->points[i].value < best->value) best = &val->points[i];
    if (best) fprintf(out, "%.4f at step %.0f", best->value, best->at[BB_AXIS_STEP]);
}

static void put_last(FILE *out, const bb_series *series, const char *format) {
    if (series->count) fprintf(out, format, series->points[series->count - 1].value); /* NOLINT: one of the formats below */
}

typedef enum card_row {
    RUN_STEPS,
    RUN_BYTES,
    RUN_TIME,
    RUN_LEFT,
    RUN_PARAMETERS,
    RUN_BEST,
    RUN_LOSS,
    RUN_RATE,
    RUN_MEMORY,
    RUN_SKIPPED,
    CARD_ROWS
} card_row;
static const char *const card_titles[CARD_ROWS] = {
    [RUN_STEPS] = "steps",
    [RUN_BYTES] = "bytes trained on",
    [RUN_TIME] = "time",
    [RUN_LEFT] = "time left at this rate",
    [RUN_PARAMETERS] = "parameters",
    [RUN_BEST] = "best bits per byte",
    [RUN_LOSS] = "last loss",
    [RUN_RATE] = "bytes per second",
    [RUN_MEMORY] = "memory",
    [RUN_SKIPPED] = "skipped steps",
};
static const char *const options_shown[] = {"n_layer",    "d_model",    "n_head", "n_kv_head", "d_ff",
                                            "seq_len",    "optim",      "lr",     "wd",        "lr_schedule",
                                            "batch_size", "grad_accum", "seed",   "data",      "val_data"};

static void put_time_left(FILE *out, const bb_run_log *run) {
    double left = json_number_value(json_object_get(run->config, "steps")) - run->last.value;
    if (left > 0 && run->last.value > 0) fputs(bb_text_duration(left * run->last.at[BB_AXIS_TIME] / run->last.value).s, out);
}

static void put_card_cell(FILE *out, const bb_run_log *run, card_row row) {
    const json_t *steps = json_object_get(run->config, "steps");
    switch (row) {
    case RUN_STEPS:
        fprintf(out, "%.0f", run->last.value);
        if (json_is_integer(steps)) fprintf(out, " of %lld", (long long)json_integer_value(steps));
        break;
    case RUN_BYTES: fputs(bb_text_bytes((uint64_t)run->last.at[BB_AXIS_BYTES]).s, out); break;
    case RUN_TIME: fputs(bb_text_duration(run->last.at[BB_AXIS_TIME]).s, out); break;
    case RUN_LEFT: put_time_left(out, run); break;
    case RUN_PARAMETERS:
        if (parameters_of(run->config)) fputs(bb_text_count(parameters_of(run->config)).s, out);
        break;
    case RUN_BEST: put_best(out, &run->series[BB_METRIC_VAL_BPB]); break;
    case RUN_LOSS: put_last(out, &run->series[BB_METRIC_LOSS], "%.4f nats per byte"); break;
    case RUN_RATE: put_last(out, &run->series[BB_METRIC_BYTES_PER_S], "%.0f"); break;
    case RUN_MEMORY: put_last(out, &run->series[BB_METRIC_MEMORY], "%.0f MB"); break;
    case RUN_SKIPPED: put_last(out, &run->series[BB_METRIC_SKIPPED], "%.0f"); break;
    case CARD_ROWS: break;
    }
}

static void put_cards(FILE *out, const bb_run_log *runs, int count) {
    fputs("<h2>Runs</h2><div class=\"wide\"><table><tr><th></th>", out);
    for (int r = 0; r < count; r++) {
        fputs("<th>", out);
        bb_html_text(out, runs[r].name);
        fputs("</th>", out);
    }
    for (int row = 0; row < CARD_ROWS; row++) {
        fprintf(out, "</tr>\n<tr><th>%s</th>", card_titles[row]);
        for (int r = 0; r < count; r++) {
            fputs("<td>", out);
            put_card_cell(out, &runs[r], (card_row)row);
            fputs("</td>", out);
        }
    }
    for (size_t i = 0; i < sizeof options_shown / sizeof *options_shown; i++) {
        fprintf(out, "</tr>\n<tr><th>%s</th>", options_shown[i]);
        for (int r = 0; r < count; r++) {
            fputs("<td>", out);
            put_value(out, json_object_get(runs[r].config, options_shown[i]));
            fputs("</td>", out);
        }
    }
    fputs("</tr></table></div>\n", out);
}

/* ---- weights ----------------------------------------------------------------------------------------------------------- */

void bb_page_shares(FILE *out, const json_t *ternary) {
    enum { ROW = 14, NAMES = 230, BARS = 420, HEAD = 18 };
    size_t count = json_array_size(ternary);
    fprintf(out,
            "<svg class=\"shares\" viewBox=\"0 0 %d %zu\" width=\"%d\" height=\"%zu\" role=\"img\" aria-label=\"shares of -1, "
            "0 and +1\">",
            NAMES + BARS, HEAD + count * ROW, NAMES + BARS, HEAD + count * ROW);
    fprintf(out,
            "<text x=\"%d\" y=\"12\">-1</text><text x=\"%d\" y=\"12\" text-anchor=\"middle\">0</text>"
            "<text x=\"%d\" y=\"12\" text-anchor=\"end\">+1</text>",
            NAMES, NAMES + BARS / 2, NAMES + BARS);
    for (size_t i = 0; i < count; i++) {
        static const char *const parts[] = {"minus", "zero", "plus"};
        const json_t *matrix = json_array_get(ternary, i);
        double at = NAMES;
        size_t y = HEAD + i * ROW;
        fprintf(out, "<text x=\"0\" y=\"%zu\">", y + 10);
        const char *name = json_string_value(json_object_get(matrix, "name"));
        bb_html_text(out, name ? name : "");
        fputs("</text>", out);
        for (int k = 0; k < 3; k++) {
            double width = BARS * json_number_value(json_object_get(matrix, parts[k]));
            fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%zu\" width=\"%.1f\" height=\"%d\"><title>%.1f%%</title></rect>",
                    parts[k], at, y, width, ROW - 3, 100 * width / BARS);
            at += width;
        }
    }
    fputs("</svg>", out);
}

/* From the latest checkpoint; a running run may have replaced it just now. */
static void put_weights(FILE *out, const bb_run_log *run) {
    char path[4096], *text = NULL;
    bb_error err;
    bb_status status = bb_run_latest_checkpoint(run->path, path, sizeof path, &err);
    if (status == BB_OK) status = bb_describe_file(path, NULL, &text, &err);
    json_t *description = text ? json_loads(text, 0, NULL) : NULL;
    bb_string_free(text);
    fputs("<h2>Weights of ", out);
    bb_html_text(out, run->name);
    fputs("</h2>", out);
    if (status == BB_OK) {
        fprintf(out, "<p>%s of parameters: a file of %s, %s at two bits a ternary weight.</p>",
                bb_text_count((uint64_t)json_integer_value(json_object_get(description, "parameters"))).s,
                bb_text_bytes((uint64_t)json_integer_value(json_object_get(description, "file_bytes"))).s,
                bb_text_bytes((uint64_t)json_integer_value(json_object_get(description, "packed_bytes"))).s);
        bb_page_shares(out, json_object_get(description, "ternary"));
    } else {
        fputs("<p>No checkpoint to read: ", out);
        bb_html_text(out, err.message);
        fputs("</p>", out);
    }
    json_decref(description);
}

/* ---- samples ----------------------------------------------------------------------------------------------------------- */

/* Newest first. */
static void put_samples(FILE *out, const bb_run_log *run) {
    size_t count = json_array_size(run->samples);
    if (count == 0) return;
    fputs("<h2>Samples of ", out);
    bb_html_text(out, run->name);
    fputs("</h2><table><tr><th>step</th><th>text</th></tr>\n", out);
    for (size_t i = 0; i < count && i < MAX_SAMPLES; i++) {
        const json_t *line = json_array_get(run->samples, count - 1 - i);
        const char *prompt = json_string_value(json_object_get(line, "prompt"));
        fprintf(out, "<tr><td>%lld</td><td><pre><b>", (long long)json_integer_value(json_object_get(line, "step")));
        bb_html_text(out, prompt ? prompt : "");
        fputs("</b>", out);
        bb_html_text(out, json_string_value(json_object_get(line, "sample")));
        fputs("</pre></td></tr>\n", out);
    }
    fputs("</table>\n", out);
}

/* ---- the page ---------------------------------------------------------------------------------------------------------- */

static bool any_values(const bb_run_log *runs, int count, int metric) {
    for (int r = 0; r < count; r++)
        for (int i = 0; i < runs[r].series[metric].count; i++)
            if (metric != BB_METRIC_SKIPPED || runs[r].series[metric].points[i].value > 0) return true;
    return false;
}

/* Writes SVG in HTML with the classes that the controls select. */
static void put_plot(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *plot) {
    char *svg = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&svg, &size);
    if (!memory) return;
    bb_plot_svg(memory, runs, count, plot);
    if (fclose(memory) == 0)
        fprintf(out, "<svg class=\"bb x-%s %s\"%s", bb_axis_names[plot->x], plot->log_y ? "log" : "lin",
                svg + strlen("<svg class=\"bb\""));
    free(svg);
}

void bb_page_main(FILE *out, const bb_run_log *runs, int count, const bb_page_options *o) {
    fputs("<div class=\"plots\">", out);
    for (int metric = 0; metric < BB_METRICS; metric++) {
        if (!any_values(runs, count, metric)) continue;
        fputs("<div class=\"plot\">", out);
        for (int x = 0; x < BB_AXES; x++)
            for (int log_y = 0; log_y < 2; log_y++) {
                bool smooth = metric == BB_METRIC_LOSS || metric == BB_METRIC_GRAD_NORM || metric == BB_METRIC_BYTES_PER_S;
                bb_plot_options plot = {.metric = (bb_metric)metric,
                                        .x = (bb_axis)x,
                                        .smoothing = smooth ? o->smoothing : 0,
                                        .log_x = o->log_x,
                                        .log_y = log_y};
                put_plot(out, runs, count, &plot);
            }
        fputs("</div>\n", out);
    }
    fputs("</div>\n", out);
    put_cards(out, runs, count);
    for (int r = 0; r < count; r++) put_samples(out, &runs[r]);
    for (int r = 0; r < count && !o->no_weights; r++) put_weights(out, &runs[r]);
}

void bb_page_html(FILE *out, const bb_run_log *runs, int count, const bb_page_options *o) {
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
          "<meta name=\"color-scheme\" content=\"light dark\"><title>",
          out);
    for (int r = 0; r < count; r++) {
        if (r) fputs(", ", out);
        bb_html_text(out, runs[r].name);
    }
    fputs("</title><style>", out);
    bb_page_style(out);
    fprintf(out, "</style></head><body><h1>Training report</h1>\n");
    bb_page_controls(out, o);
    fputs("<main>\n", out);
    bb_page_main(out, runs, count, o);
    fprintf(out, "</main><footer><p>bitbyte %s</p></footer></body></html>\n", bb_version());
}
