// SPDX-License-Identifier: MIT
/* bitbyte generate: continues a prompt, showing each byte as it comes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "generate.h"
#include "signals.h"

static struct {
    bb_generate_options options;
    bb_device_args device;
    const char *model, *prompt, *prompt_file, *metrics_json, *draft;
    int kv_cache;
    const char *line_prefix, *line_suffix;
    bb_cli_list stops;
    int64_t seed;
    int samples, speculate;
    bool metrics, json, echo, no_echo, interactive;
} args = {.samples = 1, .speculate = BB_SPECULATE_AUTO, .line_prefix = "\\n", .line_suffix = ""};

static const char *const speculate_choices[] = {
    [BB_SPECULATE_OFF] = "off", [BB_SPECULATE_AUTO] = "auto", [BB_SPECULATE_ALWAYS] = "always", NULL};

/* clang-format off: a table is read by rows */

static bb_cli_option options[] = {
    {.help = "What is continued"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .target = &args.model,
     .value = "MODEL",
     .position = 1,
     .required = true,
     .help = "model file, checkpoint, or run directory (its newest checkpoint)"},
    {.name = "prompt",
     .type = BB_CLI_STRING,
     .target = &args.prompt,
     .value = "TEXT",
     .position = 2,
     .help = "what it goes on from, as it stands; - is standard input",
     .default_text = "empty"},
    {.name = "prompt_file",
     .type = BB_CLI_STRING,
     .target = &args.prompt_file,
     .value = "F",
     .help = "read it from a file, every byte of it; - is standard input"},
    {.name = "max_new_bytes",
     .type = BB_CLI_INT64,
     .target = &args.options.max_new_bytes,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes to write, at most"},
    {.name = "stop",
     .type = BB_CLI_LIST,
     .one_each = true,
     .target = &args.stops,
     .value = "TEXT",
     .help =
         "end where this text comes, which is not written; may be given several times. \\n, \\r, \\t, \\\\ and \\xHH stand for "
         "their bytes. What may be the beginning of it is written once it is clear that it is not"},
    {.name = "n",
     .type = BB_CLI_INT,
     .target = &args.samples,
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 10000),
     .help = "so many different texts, the prompt being read once: sample 1 with the seed, the next with the seed + 1, … Each "
             "begins "
             "with a line '--- sample 1 of N, seed S ---' and ends with a newline"},
    {.name = "context_length",
     .type = BB_CLI_INT,
     .target = &args.options.context_length,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes that the model sees at once; when they are full the older half is dropped, so that writing can go on for "
             "ever in the same memory",
     .default_text = "0: the length it was trained on"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .target = &args.kv_cache,
     .choices = bb_kv_choices,
     .help = "what the model keeps of those bytes, in 6 or 8 bits or as it is; with 6, long contexts are fastest"},
    {.help = "How bytes are chosen, in this order"},
    {.name = "repetition_penalty",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.repetition_penalty,
     .value = "X",
     .range = BB_CLI_ABOVE(0),
     .help = "the logit of every byte that stands among the last ones is divided by it, or multiplied where it is negative; 1: "
             "off. "
             "Bytes are letters: 1.05 is much"},
    {.name = "repetition_window",
     .type = BB_CLI_INT,
     .target = &args.options.repetition_window,
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 65536),
     .help = "how many last bytes that looks at, the prompt's among them"},
    {.name = "temperature",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.temperature,
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "below 1 safer, above 1 wilder; 0 always takes the likeliest byte"},
    {.name = "top_k",
     .type = BB_CLI_INT,
     .target = &args.options.top_k,
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 256),
     .help = "only the N likeliest bytes; 0: all"},
    {.name = "top_p",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.top_p,
     .value = "X",
     .range = BB_CLI_ABOVE_TO(0, 1),
     .help = "of those the likeliest that together have this share of their probability; 1: all"},
    {.name = "min_p",
     .type = BB_CLI_DOUBLE,
     .target = &args.options.min_p,
     .value = "X",
     .range = BB_CLI_FROM_TO(0, 1),
     .help = "of those the ones that are at least X times as likely as the likeliest; 0: all"},
    {.name = "seed",
     .type = BB_CLI_INT64,
     .target = &args.seed,
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "same seed, same text"},
    {.help = "A conversation"},
    {.name = "interactive",
     .type = BB_CLI_FLAG,
     .target = &args.interactive,
     .help = "lines typed (or piped) in are put at the end of the text, after the prompt if there is one, and the model goes "
             "on from "
             "each; Ctrl-C stops an answer, Ctrl-D ends, /help says more"},
    {.name = "line_prefix",
     .type = BB_CLI_STRING,
     .target = &args.line_prefix,
     .value = "TEXT",
     .help = "put before each line but one that the text begins with; escapes as in --stop",
     .default_text = "\\n"},
    {.name = "line_suffix",
     .type = BB_CLI_STRING,
     .target = &args.line_suffix,
     .value = "TEXT",
     .help = "put after each line, before the answer; escapes as in --stop",
     .default_text = "nothing"},
    {.help = "Output and machine"},
    {.name = "echo",
     .type = BB_CLI_FLAG,
     .target = &args.echo,
     .help = "write the prompt first, also where the output is no terminal (on a terminal it is shown dimmed anyway)"},
    {.name = "no_echo", .type = BB_CLI_FLAG, .target = &args.no_echo, .help = "do not show the prompt on a terminal either"},
    {.name = "metrics",
     .type = BB_CLI_FLAG,
     .target = &args.metrics,
     .help = "speed, and the model's own bits per byte of what it wrote, on standard error"},
    {.name = "metrics_json",
     .type = BB_CLI_STRING,
     .target = &args.metrics_json,
     .value = "F",
     .help = "the same as a JSON file"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .target = &args.json,
     .help =
         "instead of the text one JSON object: the settings, the metrics, and an array \"samples\" with seed, text and metrics "
         "of each; where a text is no UTF-8 its bytes are also there as \"hex\""},
    {.name = "speculate",
     .type = BB_CLI_CHOICE,
     .target = &args.speculate,
     .choices = speculate_choices,
     .help =
         "guess bytes from what stood in the text before (or with --draft), and verify several at once: not one byte of the "
         "text changes. auto: where it is faster; always: whatever it costs"},
    {.name = "draft",
     .type = BB_CLI_STRING,
     .target = &args.draft,
     .value = "MODEL",
     .help = "a smaller model of the same kind of text that guesses too, for a large one: given like MODEL"},
    BB_DEVICE_ROWS(args.device),
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "generate",
    .summary = "let a model continue a prompt. Bytes go to standard output as they come, unchanged; on a terminal only whole "
               "UTF-8 characters are shown, and what is none as \xEF\xBF\xBD.",
    .usage = "MODEL [--prompt TEXT | --prompt_file F] [--interactive] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples =
        "  bitbyte generate runs/small --prompt 'In the beginning ' --max_new_bytes 1000\n"
        "  bitbyte generate runs/small --temperature 0 --prompt_file - <start.txt >continued.txt\n"
        "  bitbyte generate runs/small --prompt 'Once' --echo --metrics --seed 7 | tee text.txt\n"
        "  bitbyte generate runs/small --prompt 'Q: Why? A:' --stop '\\n' --n 3 --json\n"
        "  bitbyte generate runs/small --interactive --stop '\\nYou: ' --line_prefix '\\nYou: ' --line_suffix '\\nI: '\n",
};

/* What on_byte and on_read see. */
typedef struct writer {
    bb_utf8_out text;
    bb_sample *sample;
    bb_progress progress;
    int number;
    bool failed; /* out of memory for what is kept for JSON */
} writer;

static bool keep_byte(bb_sample *s, uint8_t byte) {
    if (s->length == s->room) {
        size_t room = s->room ? 2 * s->room : 4096;
        uint8_t *larger = realloc(s->text, room);
        if (!larger) return false;
        s->text = larger;
        s->room = room;
    }
    s->text[s->length++] = byte;
    return true;
}

static bool on_byte(void *user, uint8_t byte) {
    writer *w = user;
    bb_utf8_out_byte(&w->text, byte);
    if (!args.json) {
        fflush(stdout);
        return !*bb_signals_stop() && !ferror(stdout);
    }
    if (!keep_byte(w->sample, byte)) w->failed = true;
    bb_progress_update(&w->progress, "sample %d of %d: %zu bytes", w->number, args.samples, w->sample->length);
    return !*bb_signals_stop() && !w->failed;
}

static bool on_read(void *user, int64_t done, int64_t total) {
    writer *w = user;
    bb_progress_update(&w->progress, "reading the prompt: %lld of %lld bytes", (long long)done, (long long)total);
    if (done == total) bb_progress_clear(&w->progress);
    return !*bb_signals_stop();
}

static void show_prompt(bb_utf8_out *text, const uint8_t *prompt, size_t length, bool terminal) {
    if (length == 0) return;
    if (terminal) fputs("\033[2m", stdout);
    for (size_t i = 0; i < length; i++) bb_utf8_out_byte(text, prompt[i]);
    if (terminal) fputs("\033[0m", stdout);
    fflush(stdout);
}

static bb_status write_metrics(const bb_generate_report *r, bb_error *err) {
    json_t *json = bb_generate_report_json(r);
    char *text = json ? bb_cli_json_text(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    FILE *file = text ? fopen(args.metrics_json, "w") : NULL;
    bool good = file && fprintf(file, "%s\n", text) > 0;
    if (file && fclose(file) != 0) good = false;
    free(text);
    if (good) return BB_OK;
    err->code = BB_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: cannot write the metrics: %s", args.metrics_json, strerror(errno));
    return err->code;
}

/* One continuation, written or kept. */
static bb_status write_sample(bb_session *session, writer *w, const uint8_t *prompt, size_t length, bool terminal,
                              bb_error *err) {
    bb_sample *s = w->sample;
    bb_generate_options o = args.options;
    o.seed = s->seed;
    o.on_byte = on_byte;
    o.user = w;
    if (args.samples > 1 && !args.json)
        printf("--- sample %d of %d, seed %llu ---\n", w->number, args.samples, (unsigned long long)s->seed);
    /* what is kept for JSON is only counted here: nothing is shown */
    bb_utf8_out_open(&w->text, args.json ? NULL : stdout, args.json || !terminal);
    if (!args.json && (args.echo || (terminal && !args.no_echo))) show_prompt(&w->text, prompt, length, terminal);
    w->text.invalid = 0;
    bb_status status = bb_session_generate(session, &o, &s->metrics, err);
    bb_utf8_out_end(&w->text);
    if (!args.json && (terminal || args.samples > 1)) fputc('\n', stdout);
    fflush(stdout);
    s->invalid_utf8 = w->text.invalid;
    if (status == BB_OK && w->failed) {
        err->code = status = BB_ERR_MEMORY;
        snprintf(err->message, sizeof err->message, "out of memory for a text of %zu bytes", s->length);
    }
    if (status == BB_OK && args.metrics) {
        bb_progress_clear(&w->progress);
        bb_generate_report_show(s, stderr);
    }
    return status;
}

static bb_status write_samples(bb_session *session, writer *w, const char *model_path, const uint8_t *prompt, size_t length,
                               bb_error *err) {
    bool terminal = isatty(STDOUT_FILENO) == 1;
    bb_sample *samples = calloc((size_t)args.samples, sizeof *samples);
    int made = 0;
    bb_status status = BB_OK;
    if (!samples) {
        err->code = status = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for the samples");
    }
    if (status == BB_OK && args.samples > 1) status = bb_session_mark(session, err);
    while (status == BB_OK && made < args.samples && !*bb_signals_stop() && !ferror(stdout)) {
        if (made > 0) status = bb_session_rewind(session, err);
        if (status != BB_OK) break;
        w->sample = &samples[made++];
        w->number = made;
        w->sample->seed = args.options.seed + (uint64_t)(made - 1);
        status = write_sample(session, w, prompt, length, terminal, err);
    }
    bb_progress_clear(&w->progress);
    if (status == BB_OK && made > 0) {
        bb_generate_report r = {.model = model_path,
                                .options = &args.options,
                                .samples = samples,
                                .count = made,
                                .prompt_seconds = samples[0].metrics.prompt_seconds,
                                .prompt_bytes = (int64_t)length};
        if (args.metrics_json) status = write_metrics(&r, err);
        r.with_text = true;
        if (args.json) bb_json_line(bb_generate_report_json(&r));
    }
    for (int i = 0; i < made; i++) free(samples[i].text);
    free(samples);
    return status;
}

/* Returns the exit status, or -1 with err. */
static int generate(bb_model *model, bb_model *draft, const char *model_path, const uint8_t *prompt, size_t length,
                    const bb_bytes lines[2], bb_error *err) {
    int64_t context = args.options.context_length ? args.options.context_length : bb_model_trained_length(model);
    writer w = {.number = 0};
    bb_session *session = NULL;
    bb_session_options session_options;
    bb_session_options_default(&session_options);
    session_options.context_length = args.options.context_length;
    session_options.kv_cache = (bb_kv_type)args.kv_cache;
    session_options.draft = draft;
    session_options.on_read = on_read;
    session_options.user = &w;
    bb_progress_open(&w.progress, stderr, 0);
    if (args.interactive)
        bb_interactive_prepare(&session_options);
    else if ((int64_t)length + args.options.max_new_bytes > context)
        fprintf(stderr,
                "note: %zu bytes of prompt and %lld new ones pass the context of %lld: each time it is full, its older half is "
                "forgotten\n",
                length, (long long)args.options.max_new_bytes, (long long)context);
    bb_signals_install(NULL, NULL, NULL);
    bb_status status = bb_session_open(model, &session_options, &session, err);
    if (status == BB_OK) status = bb_session_feed(session, prompt, length, err);
    bb_progress_clear(&w.progress);
    int exit_status = -1;
    if (status == BB_OK && args.interactive) {
        bb_interactive i = {.options = args.options,
                            .session = session,
                            .line_prefix = lines[0],
                            .line_suffix = lines[1],
                            .metrics = args.metrics};
        exit_status = bb_interactive_run(&i, err);
    } else {
        if (status == BB_OK) status = write_samples(session, &w, model_path, prompt, length, err);
        if (status == BB_OK || status == BB_ERR_INTERRUPTED) exit_status = bb_signals_exit_status();
    }
    bb_session_close(session);
    return exit_status;
}

static const char *contradiction(void) {
    if (args.prompt && args.prompt_file) return "give --prompt or --prompt_file, not both";
    if (args.echo && args.no_echo) return "give --echo or --no_echo, not both";
    if (args.json && args.echo) return "--json holds no prompt: leave --echo out";
    if (args.draft && args.speculate == BB_SPECULATE_OFF) return "--draft guesses nothing with --speculate off: leave one out";
    if (!args.interactive) {
        if (bb_cli_given(&command, "line_prefix") || bb_cli_given(&command, "line_suffix"))
            return "--line_prefix and --line_suffix only mean something with --interactive";
        return NULL;
    }
    if (args.samples > 1) return "--interactive has one answer a line (/again gives another): leave --n out";
    if (args.json || args.metrics_json) return "--interactive gives no JSON; --metrics follows each answer";
    if (args.prompt_file && strcmp(args.prompt_file, "-") == 0)
        return "--interactive reads lines from standard input: the prompt cannot come from there too";
    return NULL;
}

/* The stop texts and what stands around lines, unescaped into one piece of memory. */
static bb_status unescape_all(uint8_t **memory, bb_bytes **stops, bb_bytes lines[2], bb_error *err) {
    size_t size = strlen(args.line_prefix) + strlen(args.line_suffix) + 1;
    for (int i = 0; i < args.stops.count; i++) size += strlen(args.stops.items[i]);
    uint8_t *at = *memory = malloc(size);
    *stops = calloc((size_t)args.stops.count + 1, sizeof **stops);
    if (!*memory || !*stops) {
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for the stop texts");
        return err->code;
    }
    bb_status status = BB_OK;
    for (int i = 0; i < args.stops.count + 2 && status == BB_OK; i++) {
        int line = i - args.stops.count; /* 0: prefix, 1: suffix */
        const char *text = line < 0 ? args.stops.items[i] : line == 0 ? args.line_prefix : args.line_suffix;
        bb_bytes *out = line < 0 ? &(*stops)[i] : &lines[line];
        out->data = at;
        status = bb_generate_unescape(line < 0 ? "stop" : line == 0 ? "line_prefix" : "line_suffix", text, at, &out->size, err);
        at += out->size;
    }
    args.options.stops = *stops;
    args.options.stop_count = args.stops.count;
    return status;
}

int bb_cmd_generate(int argc, char **argv) {
    bb_generate_options_default(&args.options);
    int exit_status = bb_cli_parse(&command, argc, argv);
    if (exit_status != BB_CLI_GO_ON) return exit_status;
    if (args.prompt && strcmp(args.prompt, "-") == 0 && !args.prompt_file) {
        args.prompt_file = "-";
        args.prompt = NULL;
    }
    if (contradiction()) return bb_cli_usage_error(&command, "%s", contradiction());
    args.options.seed = (uint64_t)args.seed;
    args.options.speculate = (bb_speculate)args.speculate;

    char path[4096], draft_path[4096];
    bb_error err;
    bb_device *device = NULL;
    bb_model *model = NULL, *draft = NULL;
    uint8_t *read = NULL, *texts = NULL;
    const uint8_t *prompt = (const uint8_t *)args.prompt;
    size_t length = args.prompt ? strlen(args.prompt) : 0;
    bb_bytes *stops = NULL, lines[2];
    bb_status status = unescape_all(&texts, &stops, lines, &err);
    if (status == BB_OK) status = bb_device_args_open(&args.device, &device, &err);
    if (status == BB_OK) status = bb_model_open(device, args.model, path, sizeof path, &model, &err);
    if (status == BB_OK && args.draft) status = bb_model_open(device, args.draft, draft_path, sizeof draft_path, &draft, &err);
    if (status == BB_OK && args.prompt_file) {
        status = bb_generate_read_all(args.prompt_file, &read, &length, &err);
        prompt = read;
    }
    exit_status = status == BB_OK ? generate(model, draft, path, prompt, length, lines, &err) : -1;
    if (exit_status < 0) exit_status = bb_cli_fail(&command, &err);
    free(read);
    free(texts);
    free(stops);
    bb_model_free(draft);
    bb_model_free(model);
    bb_device_close(device);
    return exit_status;
}
