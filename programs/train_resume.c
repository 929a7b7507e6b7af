// SPDX-License-Identifier: MIT
/* Completes the options of a resumed run from its saved configuration. */
#include "train_resume.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_json.h"

static bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* A run that was killed before its first checkpoint restarts from step 0. */
static bool holds_checkpoints(const char *directory) {
    DIR *dir = opendir(directory);
    if (!dir) return false;
    bool found = false;
    const struct dirent *entry;
    while (!found && (entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name);
        found =
            strncmp(entry->d_name, "step-", 5) == 0 && length > 12 && strcmp(entry->d_name + length - 12, ".safetensors") == 0;
    }
    closedir(dir);
    return found;
}

static bool is_known_version(const json_t *config) {
    const json_t *version = json_object_get(config, "version");
    return json_is_integer(version) && json_integer_value(version) == BB_RUN_CONFIG_VERSION;
}

/* Loads the config.json of a run directory. The caller releases *out. */
static int load_config(const bb_cli *cli, const char *path, json_t **out) {
    json_error_t where;
    if (access(path, R_OK) != 0)
        return bb_cli_failure(cli->command,
                              "%s: cannot read: %s (expected in a run directory; to resume from a checkpoint, name the file)",
                              path, strerror(errno));
    *out = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(*out))
        return bb_cli_failure(cli->command, "%s: expected one JSON object: %s", path,
                              *out ? "found another value" : where.text);
    if (!is_known_version(*out))
        return bb_cli_failure(cli->command, "%s: expected \"version\": 1; a newer version of bitbyte may have written it",
                              path);
    return BB_CLI_CONTINUE;
}

/* An extended schedule keeps the length of its warmup, which may already be over. */
static void extend(const bb_cli *cli, bb_train_args *args, const json_t *saved) {
    int64_t steps = json_integer_value(json_object_get(saved, "steps"));
    if (steps == 0 || steps == args->options.steps) return;
    args->saved_steps = steps;
    if (args->options.warmup_steps < 0 && !bb_cli_given(cli, "warmup_frac"))
        args->options.warmup_steps = (int64_t)(args->options.warmup_frac * (double)steps);
}

/* Runs that were begun before momentum was an option had 0.95, whatever their architecture. */
static void keep_momentum(const bb_cli *cli, bb_train_args *args, const json_t *saved) {
    const char *optim = json_string_value(json_object_get(saved, "optim"));
    bool without = optim && strcmp(optim, "muon") == 0 && !json_object_get(saved, "muon_momentum");
    if (without && !bb_cli_given(cli, "muon_momentum")) args->muon_momentum = 0.95;
}

static int read_run_config(const bb_cli *cli, bb_train_args *args) {
    char path[4200];
    snprintf(path, sizeof path, "%s/config.json", args->resume);
    int status = load_config(cli, path, &args->saved);
    if (status != BB_CLI_CONTINUE) return status;
    status = bb_cli_from_json(cli, args->saved, path, true, &args->changes);
    if (status != BB_CLI_CONTINUE) return status;
    const char *data = json_string_value(json_object_get(args->saved, "data"));
    args->options.require_same_data = data && strcmp(args->data, data) != 0;
    extend(cli, args, args->saved);
    keep_momentum(cli, args, args->saved);
    return BB_CLI_CONTINUE;
}

/* Loads the config.json next to a checkpoint; NULL if there is none. */
static json_t *load_config_beside(const char *checkpoint) {
    const char *slash = strrchr(checkpoint, '/');
    char path[4200];
    snprintf(path, sizeof path, "%.*sconfig.json", slash ? (int)(slash + 1 - checkpoint) : 0, checkpoint);
    json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(config) && is_known_version(config)) return config;
    json_decref(config);
    return NULL;
}

/* Options not given come from the configuration stored in the checkpoint. Those that it lacks (paths, options without influence
 * on results) come from the config.json next to the file. */
static int read_file_config(const bb_cli *cli, bb_train_args *args) {
    char *text = NULL;
    bb_error err;
    if (bb_run_named_checkpoint(args->resume, args->checkpoint, sizeof args->checkpoint, &err) != BB_OK ||
        bb_checkpoint_config(args->checkpoint, &text, &err) != BB_OK)
        return bb_cli_fail(cli->command, &err);
    json_t *own = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : json_object();
    bb_string_free(text);
    args->file_config = load_config_beside(args->checkpoint);
    if (!args->file_config) args->file_config = json_object();
    int status = json_object_update(args->file_config, own) == 0
                     ? bb_cli_from_json(cli, args->file_config, args->checkpoint, false, &args->changes)
                     : bb_cli_failure(cli->command, "%s: run_config is not a JSON object", args->resume);
    json_decref(own);
    if (status != BB_CLI_CONTINUE) return status;
    extend(cli, args, args->file_config);
    keep_momentum(cli, args, args->file_config);
    return BB_CLI_CONTINUE;
}

int bb_train_resume(const bb_cli *cli, bb_train_args *args) {
    if (access(args->resume, R_OK) != 0)
        return bb_cli_failure(cli->command, "%s: cannot read: %s (--resume takes a run directory or a checkpoint)",
                              args->resume, strerror(errno));
    if (bb_is_hf_folder(args->resume))
        return bb_cli_usage_error(
            cli->command, "--resume %s: a Hugging Face folder has no training state: use --init %s to start from its weights",
            args->resume, args->resume);
    if (!is_directory(args->resume)) return read_file_config(cli, args);
    int status = read_run_config(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    if (!args->out) args->out = args->resume;
    if (!holds_checkpoints(args->resume)) return BB_CLI_CONTINUE; /* otherwise the trainer finds the latest valid checkpoint */
    if (strlen(args->resume) >= sizeof args->checkpoint)
        return bb_cli_usage_error(cli->command, "--resume: the path is too long");
    strcpy(args->checkpoint, args->resume);
    return BB_CLI_CONTINUE;
}
