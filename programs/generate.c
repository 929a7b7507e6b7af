// SPDX-License-Identifier: MIT
/* bitbyte generate: continues a prompt and prints each byte as it is generated. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "generate_options.h"
#include "generate_prompts.h"
#include "generate_samples.h"
#include "interactive.h"
#include "progress.h"
#include "replacement.h"
#include "signals.h"

typedef struct generate_args {
    bb_generation generation;
    bb_device_args device;
    bb_import_args import;
    const char *model, *prompt, *prompt_file, *prompts, *out, *metrics_json, *draft;
    const char *line_prefix, *line_suffix;
    int samples, parallel, cache_mb;
    bool metrics, json, echo, no_echo, interactive;
} generate_args;

/* clang-format off: a table is read by rows */

static const bb_cli_option options[] = {
    {.help = "Model and prompt"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, model),
     .value = "MODEL",
     .position = 1,
     .required = true,
     .help =
         "model file of any format, checkpoint, Hugging Face folder, run directory (its latest valid checkpoint), or RUN/best"},
    {.name = "prompt",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, prompt),
     .value = "TEXT",
     .position = 2,
     .help = "text to continue, used unchanged; - for standard input",
     .default_text = "empty"},
    {.name = "prompt_file",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, prompt_file),
     .value = "F",
     .help = "read the prompt from a file, unchanged; - for standard input"},
    {.name = "n",
     .type = BB_CLI_INT,
     .offset = offsetof(generate_args, samples),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 10000),
     .help = "generate N samples from one prompt, several at once, with seeds S, S + 1, ... Each starts with a line '--- "
             "sample 1 of N, seed "
             "S ---' and ends with a newline"},
    {.name = "prompts",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, prompts),
     .value = "FILE.jsonl",
     .help =
         "generate for each line of a file, - for standard input: a JSON object with prompt or prompt_hex, and optionally id, "
         "stop (a text or an array), and the generation options below by name. Writes one JSON line for each, in order: id, "
         "line, text, finish, new_bytes, mean_logprob, or error"},
    {.name = "out",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, out),
     .value = "FILE",
     .help = "with --prompts: write results to a file. If it exists, continue after its last complete line"},
    {.name = "parallel",
     .type = BB_CLI_INT,
     .offset = offsetof(generate_args, parallel),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 256),
     .help = "texts generated at once; changes speed and memory, not the texts"},
    {.name = "cache_mb",
     .type = BB_CLI_INT,
     .offset = offsetof(generate_args, cache_mb),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 100000000),
     .help = "memory for the KV caches of all texts at once, in MB; texts that do not fit wait; 0: no limit"},
    {.group = &bb_import_group, .offset = offsetof(generate_args, import)},
    {.group = &bb_generation_group, .offset = offsetof(generate_args, generation)},
    {.help = "Conversation"},
    {.name = "interactive",
     .type = BB_CLI_FLAG,
     .offset = offsetof(generate_args, interactive),
     .help = "read lines from the terminal or a pipe, append each to the text and let the model answer. Ctrl-C stops an "
             "answer, Ctrl-D quits, /help lists commands"},
    {.name = "line_prefix",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, line_prefix),
     .value = "TEXT",
     .help = "text before each line, except at the start of the text; escapes as in --stop",
     .default_text = "\\n"},
    {.name = "line_suffix",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, line_suffix),
     .value = "TEXT",
     .help = "text after each line, before the answer; escapes as in --stop",
     .default_text = "nothing"},
    {.help = "Output and machine"},
    {.name = "echo",
     .type = BB_CLI_FLAG,
     .offset = offsetof(generate_args, echo),
     .help = "print the prompt first (on a terminal it is always shown, dimmed)"},
    {.name = "no_echo",
     .type = BB_CLI_FLAG,
     .offset = offsetof(generate_args, no_echo),
     .help = "do not show the prompt on a terminal"},
    {.name = "metrics",
     .type = BB_CLI_FLAG,
     .offset = offsetof(generate_args, metrics),
     .help = "print speed and the model's bits per byte of its own output on standard error"},
    {.name = "metrics_json",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, metrics_json),
     .value = "F",
     .help = "write the metrics to a JSON file"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(generate_args, json),
     .help = "print one JSON object instead of the text: settings, metrics, and an array \"samples\" with seed, text and "
             "metrics of each; text that is not UTF-8 is also given as \"hex\""},
    {.name = "draft",
     .type = BB_CLI_STRING,
     .offset = offsetof(generate_args, draft),
     .value = "MODEL",
     .help = "smaller draft model for speculative decoding, trained on similar text: a file or run directory like MODEL"},
    {.group = &bb_device_group, .offset = offsetof(generate_args, device)},
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "generate",
    .summary =
        "continues a prompt. Prints each byte unchanged as it is generated; on a terminal, prints whole UTF-8 characters "
        "and shows invalid bytes as \xEF\xBF\xBD.",
    .usage = "MODEL [--prompt TEXT | --prompt_file F | --prompts F.jsonl] [--interactive] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples =
        "  bitbyte generate runs/small --prompt 'In the beginning ' --max_new_bytes 1000\n"
        "  bitbyte generate runs/small --temperature 0 --prompt_file - <start.txt >continued.txt\n"
        "  bitbyte generate runs/small --prompt 'Once' --echo --metrics --seed 7 | tee text.txt\n"
        "  bitbyte generate runs/small --prompt 'Q: Why? A:' --stop '\\n' --n 3 --json\n"
        "  bitbyte generate runs/small --prompts questions.jsonl --out answers.jsonl --stop '\\n'\n"
        "  bitbyte generate runs/small --interactive --stop '\\nYou: ' --line_prefix '\\nYou: ' --line_suffix '\\nI: '\n",
};

/* The models and texts that generation starts from. */
typedef struct generation_input {
    bb_model *model, *draft; /* draft: may be NULL */
    const char *model_path;
    const uint8_t *prompt;
    size_t length;
    bb_bytes line_prefix, line_suffix;
} generation_input;

static void note_lengths(const generate_args *args, const generation_input *in) {
    const bb_generate_options *o = &args->generation.options;
    int trained = bb_model_trained_length(in->model);
    int64_t context = o->context_length ? o->context_length : trained;
    if (context > trained)
        fprintf(stderr, "note: a context of %lld bytes exceeds the trained length of %d; output gets worse beyond it\n",
                (long long)context, trained);
    if (!args->interactive && !args->prompts && (int64_t)in->length + o->max_new_bytes > context)
        fprintf(
            stderr,
            "note: %zu prompt bytes and %lld new bytes exceed the context of %lld; its older half is dropped whenever it is "
            "full\n",
            in->length, (long long)o->max_new_bytes, (long long)context);
}

static bool on_read(void *user, int64_t done, int64_t total) {
    bb_progress_update(user, "reading the prompt: %lld of %lld bytes", (long long)done, (long long)total);
    if (done == total) bb_progress_clear(user);
    return !*bb_signals_stop();
}

/* Returns the exit status, or -1 with err. */
static int converse(const generate_args *args, const generation_input *in, bb_error *err) {
    bb_session *session = NULL;
    bb_session_options session_options;
    bb_progress progress;
    int exit_status = -1;
    bb_progress_open(&progress, stderr, 0);
    bb_generation_session(&args->generation, &session_options);
    session_options.draft = in->draft;
    session_options.on_read = on_read;
    session_options.user = &progress;
    bb_interactive_prepare(&session_options);
    bb_signals_install(NULL, NULL, NULL);
    bb_status status = bb_session_open(in->model, &session_options, &session, err);
    if (status == BB_OK) status = bb_session_feed(session, in->prompt, in->length, err);
    bb_progress_clear(&progress);
    if (status == BB_OK) {
        bb_interactive i = {.generation = &args->generation,
                            .session = session,
                            .line_prefix = in->line_prefix,
                            .line_suffix = in->line_suffix,
                            .metrics = args->metrics};
        exit_status = bb_interactive_run(&i, err);
    } else if (status == BB_ERR_INTERRUPTED) {
        exit_status = bb_signals_exit_status();
    }
    bb_session_close(session);
    return exit_status;
}

/* Returns the exit status, or -1 with err. */
static int write_texts(const generate_args *args, const generation_input *in, bb_error *err) {
    bb_batch_options batch;
    bb_batch_options_default(&batch);
    batch.max_sequences = args->prompts ? args->parallel : args->samples < args->parallel ? args->samples : args->parallel;
    batch.cache_bytes = (uint64_t)args->cache_mb * 1000000;
    batch.draft = in->draft;
    note_lengths(args, in);
    if (args->interactive) return converse(args, in, err);
    bb_signals_install(NULL, NULL, NULL);
    if (args->prompts) {
        const bb_prompt_file file = {
            .model = in->model, .generation = &args->generation, .batch = &batch, .prompts = args->prompts, .out = args->out};
        return bb_generate_prompts(&file, err);
    }
    const bb_samples samples = {.model = in->model,
                                .model_path = in->model_path,
                                .generation = &args->generation,
                                .batch = &batch,
                                .prompt = {in->prompt, in->length},
                                .count = args->samples,
                                .metrics_json = args->metrics_json,
                                .metrics = args->metrics,
                                .json = args->json,
                                .echo = args->echo,
                                .no_echo = args->no_echo};
    return bb_generate_samples(&samples, err) == BB_OK ? bb_signals_exit_status() : -1;
}

static const char *prompts_contradiction(const generate_args *args) {
    if (args->prompt || args->prompt_file) return "--prompts replaces --prompt and --prompt_file";
    if (args->samples > 1) return "--prompts generates one text for each line; repeat the line with other seeds";
    if (args->interactive) return "--prompts and --interactive exclude each other";
    if (args->metrics_json || args->metrics || args->echo)
        return "--prompts writes its own JSON; omit --metrics, --metrics_json and --echo";
    return NULL;
}

static const char *contradiction(const bb_cli *cli, const generate_args *args) {
    if (args->prompt && args->prompt_file) return "give --prompt or --prompt_file, not both";
    if (args->echo && args->no_echo) return "give --echo or --no_echo, not both";
    if (args->prompts && prompts_contradiction(args)) return prompts_contradiction(args);
    if (args->out && !args->prompts) return "--out needs --prompts; otherwise redirect standard output";
    if (args->json && args->echo) return "--json output has no prompt; omit --echo";
    if (args->draft && args->generation.speculate == BB_SPECULATE_OFF)
        return "--draft has no effect with --speculate off; omit one of them";
    if (!args->interactive) {
        if (bb_cli_given(cli, "line_prefix") || bb_cli_given(cli, "line_suffix"))
            return "--line_prefix and --line_suffix require --interactive";
        return NULL;
    }
    if (args->samples > 1) return "--interactive gives one answer per line (/again gives another); omit --n";
    if (args->json || args->metrics_json) return "--interactive has no JSON output; use --metrics for each answer";
    if (args->prompt_file && strcmp(args->prompt_file, "-") == 0)
        return "--interactive reads lines from standard input, so the prompt cannot come from there";
    return NULL;
}

static void note_unused(const bb_cli *cli, const generate_args *args) {
    const bb_generate_options *o = &args->generation.options;
    static const char *const drawing[] = {"top_k", "top_p", "min_p", "seed"};
    for (int i = 0; i < 4 && !(o->temperature > 0); i++)
        bb_cli_unused(cli, drawing[i], "--temperature 0 always takes the most likely byte");
    if (!(o->temperature > 0)) bb_cli_unused(cli, "n", "with --temperature 0, all samples are the same");
    if (o->repetition_penalty >= 1 && o->repetition_penalty <= 1)
        bb_cli_unused(cli, "repetition_window", "--repetition_penalty is 1: off");
    if (args->json) bb_cli_unused(cli, "no_echo", "--json output has no prompt");
    if (args->prompts) {
        bb_cli_unused(cli, "json", "--prompts always writes JSON");
        bb_cli_unused(cli, "no_echo", "--prompts does not print prompts");
    }
    if (args->interactive) bb_cli_unused(cli, "cache_mb", "--interactive has one text");
    if (!args->prompts && args->samples == 1) bb_cli_unused(cli, "parallel", "there is one text; see --n and --prompts");
    bb_device_args_notes(cli, &args->device);
}

/* Unescapes line_prefix and line_suffix into one allocation. */
static bb_status unescape_lines(const generate_args *args, uint8_t **memory, generation_input *in, bb_error *err) {
    uint8_t *at = *memory = malloc(strlen(args->line_prefix) + strlen(args->line_suffix) + 1);
    if (!at) {
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for --line_prefix and --line_suffix");
        return err->code;
    }
    in->line_prefix.data = at;
    bb_status status = bb_unescape("line_prefix", args->line_prefix, at, &in->line_prefix.size, err);
    if (status != BB_OK) return status;
    in->line_suffix.data = at + in->line_prefix.size;
    return bb_unescape("line_suffix", args->line_suffix, at + in->line_prefix.size, &in->line_suffix.size, err);
}

static int generate(const bb_cli *cli, generate_args *args) {
    if (args->prompt && strcmp(args->prompt, "-") == 0 && !args->prompt_file) {
        args->prompt_file = "-";
        args->prompt = NULL;
    }
    const char *wrong = contradiction(cli, args);
    if (wrong) return bb_cli_usage_error(&command, "%s", wrong);
    note_unused(cli, args);

    bb_found_model found = {.model = NULL}, draft = {.model = NULL};
    bb_error err;
    bb_device *device = NULL;
    char *read = NULL;
    uint8_t *line_memory = NULL;
    generation_input in = {
        .model_path = found.path, .prompt = (const uint8_t *)args->prompt, .length = args->prompt ? strlen(args->prompt) : 0};
    bb_status status = bb_generation_resolve(&args->generation, &err);
    if (status == BB_OK) status = unescape_lines(args, &line_memory, &in, &err);
    if (status == BB_OK) status = bb_device_args_open(&args->device, NULL, &device, &err);
    if (status == BB_OK) status = bb_model_open(device, args->model, &args->import, &found, &err);
    if (status == BB_OK && args->draft) status = bb_model_open(device, args->draft, &(bb_import_args){0}, &draft, &err);
    in.model = found.model;
    in.draft = draft.model;
    if (status == BB_OK && args->metrics_json) {
        const char *const inputs[] = {found.path, args->draft ? draft.path : NULL, args->prompt_file};
        status = bb_replacement_check(args->metrics_json, inputs, 3, &err);
    }
    if (status == BB_OK && args->out) {
        const char *const inputs[] = {found.path, args->draft ? draft.path : NULL, args->prompts};
        status = bb_replacement_check(args->out, inputs, 3, &err);
    }
    if (status == BB_OK && args->prompt_file) {
        status = bb_read_text(args->prompt_file, bb_signals_stop(), &read, &in.length, &err);
        in.prompt = (const uint8_t *)read;
    }
    int exit_status = status == BB_OK ? write_texts(args, &in, &err) : -1;
    if (exit_status < 0) exit_status = bb_cli_fail(&command, &err);
    bb_string_free(read);
    free(line_memory);
    bb_generation_free(&args->generation);
    bb_model_free(draft.model);
    bb_model_free(found.model);
    bb_device_close(device);
    return exit_status;
}

int bb_cmd_generate(int argc, char **argv) {
    generate_args args = {.samples = 1, .parallel = 16, .line_prefix = "\\n", .line_suffix = ""};
    bb_generation_default(&args.generation);
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = generate(&cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}
