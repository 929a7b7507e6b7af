// SPDX-License-Identifier: MIT
/* Every everyday task of the library, one function each, on a model small enough to train in seconds:
 *     cc -std=c11 quick_start.c $(pkg-config --cflags --libs bitbyte) -o quick_start && ./quick_start
 * Works in a folder of its own under $TMPDIR, or in the empty folder that it is given. It also runs as a test: whatever it
 * says about its results, it checks. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp, strdup */
#include <bitbyte.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bb_error error;

/* Programs handle errors in their own way; this one stops at the first. */
static void check(bb_status status, const char *what) {
    if (status == BB_OK) return;
    fprintf(stderr, "quick_start: %s: %s: %s\n", what, bb_status_name(status), error.message);
    exit(1);
}
#define CHECK(call) check((call), #call)

static void expect(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "quick_start: failed: %s\n", what);
    exit(1);
}

static const char *in_folder(const char *folder, const char *name) {
    static char path[4096];
    expect((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path, "the path fits");
    return path;
}

/* ---- Data: text in, shards of raw bytes out, batches from them ---------------------------------------------------------- */

static void write_text(const char *path) {
    static const char *const who[] = {"The fox", "A raven", "The old mill", "My neighbour"};
    static const char *const does[] = {"waits for", "remembers", "sings to", "walks around"};
    static const char *const whom[] = {"the river", "the winter", "a lantern", "the hill"};
    FILE *file = fopen(path, "w");
    expect(file != NULL, "the text can be written");
    for (unsigned i = 0, n = 1; i < 4000; i++) {
        n = n * 1103515245u + 12345u;
        fprintf(file, "%s %s %s.\n", who[n >> 16 & 3], does[n >> 20 & 3], whom[n >> 24 & 3]);
    }
    expect(fclose(file) == 0, "the text can be written");
}

static void pack_shards(const char *text_path, const char *shard_folder) {
    bb_pack_options options;
    bb_pack_options_default(&options);
    options.inputs = &text_path;
    options.input_count = 1;
    options.out_dir = shard_folder;
    options.val_frac = 0.05;

    bb_pack_result packed;
    CHECK(bb_pack(&options, &packed, &error));
    printf("packed %lld bytes to train on and %lld to validate with\n", (long long)(packed.bytes - packed.val_bytes),
           (long long)packed.val_bytes);
}

static void read_batches(const char *shard_folder, const char *text_path) {
    enum { BATCH = 2, LONG = 96, SHORT = 32 };
    uint8_t x[BATCH * LONG], y[BATCH * LONG];

    bb_dataset *shards; /* a folder's shard_*.bin, a glob, or one file */
    CHECK(bb_byte_shard_dataset_open(shard_folder, LONG, /*seed*/ 1, /*rank*/ 0, /*world_size*/ 1, &shards, &error));
    CHECK(bb_dataset_batch(shards, BATCH, /*grad_accum*/ 1, /*micro*/ 0, x, y, &error));
    expect(memcmp(x + 1, y, LONG - 1) == 0, "y is x, one byte later");

    CHECK(bb_dataset_set_seq_len(shards, SHORT, &error));
    bb_dataset_next_step(shards, BATCH, 1);
    CHECK(bb_dataset_batch(shards, BATCH, 1, 0, x, y, &error));
    expect(bb_dataset_position(shards) == BATCH, "one step of two samples is done");
    printf("the shard dataset holds %lld bytes; a window of %d reads \"%.20s...\"\n",
           (long long)bb_dataset_get_info(shards).bytes, bb_dataset_seq_len(shards), (const char *)x);
    bb_dataset_close(shards);

    bb_dataset *stream; /* one file, whatever its name */
    CHECK(bb_byte_stream_dataset_open(text_path, SHORT, 1, 0, 1, &stream, &error));
    CHECK(bb_dataset_batch(stream, BATCH, 1, 0, x, y, &error));
    expect(memcmp(x + 1, y, SHORT - 1) == 0, "a stream gives pairs like a shard");
    bb_dataset_close(stream);
}

/* ---- The layer that everything is built of ------------------------------------------------------------------------------ */

static void quantize(bb_device *device) {
    const float weights[2 * 3] = {0.9f, -0.1f, 0.4f, -1.2f, 0.0f, 0.4f}; /* (2,3), mean |w| = 0.5 */
    int8_t ternary[2 * 3];
    float weight_scale;
    CHECK(bb_ternary_quantize(device, weights, 2, 3, ternary, &weight_scale, &error));
    expect(fabsf(weight_scale - 0.5f) < 1e-6f, "the scale is the mean magnitude");
    const int8_t expected[2 * 3] = {1, 0, 1, -1, 0, 1};
    expect(memcmp(ternary, expected, sizeof expected) == 0, "weights are rounded to -1, 0 and 1");

    const float activations[1 * 4] = {1.0f, -2.0f, 0.5f, 0.0f}; /* (1,4) */
    int8_t bytes[1 * 4];
    float row_scale;
    CHECK(bb_act_quantize(device, activations, 1, 4, bytes, &row_scale, &error));
    expect(bytes[1] == -127, "a row's largest magnitude becomes 127");
    printf("weights are %g * {%d,%d,%d, ...}, activations %g * {%d,%d,%d,%d}\n", (double)weight_scale, ternary[0], ternary[1],
           ternary[2], (double)row_scale, bytes[0], bytes[1], bytes[2], bytes[3]);
}

static void run_a_bitlinear_layer(bb_device *device) {
    enum { ROWS = 4, IN = 64, OUT = 32 };
    float x[ROWS * IN], y[ROWS * OUT], dy[ROWS * OUT], dx[ROWS * IN], dweight[OUT * IN];
    for (int i = 0; i < ROWS * IN; i++) x[i] = sinf((float)i);
    for (int i = 0; i < ROWS * OUT; i++) dy[i] = 1.0f;

    bb_bitlinear *layer;
    bb_bitlinear_options options;
    bb_bitlinear_options_default(&options);
    options.in_features = IN;
    options.out_features = OUT;
    CHECK(bb_bitlinear_create(device, &options, &layer, &error));
    CHECK(bb_bitlinear_forward(layer, x, ROWS, y, &error));
    CHECK(bb_bitlinear_backward(layer, dy, ROWS, dx, dweight, &error));
    bb_bitlinear_free(layer);

    double norm = 0;
    for (int i = 0; i < OUT * IN; i++) norm += (double)dweight[i] * (double)dweight[i];
    expect(norm > 0 && isfinite(norm), "a gradient reaches the weights through the rounding");
    printf("BitLinear %d -> %d: y[0] = %.4f, |dW| = %.3f\n", IN, OUT, (double)y[0], sqrt(norm));
}

/* ---- Model, optimizer, trainer ------------------------------------------------------------------------------------------ */

static bb_model *create_model(bb_device *device) {
    bb_config config;
    bb_config_default(&config); /* 24 layers of 1536: 680 M parameters; this one has 0.1 M */
    config.n_layer = 2;
    config.d_model = 64;
    config.n_head = 2;
    config.n_kv_head = 2;
    config.d_ff = 160;

    bb_model *model;
    CHECK(bb_model_create(device, &config, /*seed*/ 1, &model, &error));
    expect(bb_model_parameters(model) == bb_config_parameters(&config), "a configuration knows its number of parameters");
    printf("created a model of %llu parameters on %s\n", (unsigned long long)bb_model_parameters(model),
           bb_device_name(device));
    return model;
}

static bb_optimizer *create_optimizer(bb_model *model) {
    bb_optimizer_options options;
    bb_optimizer_options_default(&options);
    options.kind = BB_OPTIM_ADAMW8BIT;
    options.lr = 3e-3;
    options.weight_decay = 0.1;

    bb_optimizer *optimizer;
    CHECK(bb_optimizer_create(model, &options, &optimizer, &error));
    printf("AdamW with %s moments, %llu bytes of state\n", bb_optimizer_is_8bit(optimizer) ? "8-bit" : "f32",
           (unsigned long long)bb_optimizer_state_bytes(optimizer));
    return optimizer;
}

static bb_loss_scaler *create_loss_scaler(void) {
    bb_loss_scaler *scaler; /* only gradients in fp16 need one; a scaler that is not enabled scales by 1 */
    CHECK(bb_loss_scaler_create(65536.0, 2000, /*enabled*/ false, &scaler, &error));
    expect(bb_loss_scaler_scale(scaler) <= 1.0 && bb_loss_scaler_scale(scaler) >= 1.0, "it scales by 1");
    return scaler;
}

typedef struct progress {
    double first_loss, last_loss;
} progress;

static void on_event(void *user, const bb_train_event *event) {
    progress *seen = user;
    if (event->kind == BB_TRAIN_STEP) {
        if (event->step == 1) seen->first_loss = event->loss;
        seen->last_loss = event->loss;
        if (event->step % 20 == 0)
            printf("  step %3lld/%lld  %.3f bits per byte, learning rate %.2e\n", (long long)event->step,
                   (long long)event->total_steps, event->bpb, event->lr);
    }
    if (event->kind == BB_TRAIN_SAVED) printf("  saved %s\n", event->path);
}

enum { STEPS = 80, STOP_AT = 40, SEQ_LEN = 64 };

static bb_trainer *create_trainer(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler, const char *run_folder,
                                  int64_t stop_at, progress *seen) {
    bb_train_options options;
    bb_train_options_default(&options);
    options.steps = STEPS;
    options.stop_at = stop_at;
    options.batch_size = 4;
    options.grad_accum = 1;
    options.seq_len = SEQ_LEN; /* 0 would follow the curriculum of bb_seq_len_for_step */
    options.out_dir = run_folder;
    options.on_event = on_event;
    options.user = seen;

    bb_trainer *trainer;
    CHECK(bb_trainer_create(model, optimizer, scaler, &options, &trainer, &error));
    return trainer;
}

/* Trains to STOP_AT, like an interrupted run. */
static void train(bb_device *device, const char *shard_folder, const char *run_folder) {
    progress seen = {0};
    bb_model *model = create_model(device);
    bb_optimizer *optimizer = create_optimizer(model);
    bb_loss_scaler *scaler = create_loss_scaler();
    bb_trainer *trainer = create_trainer(model, optimizer, scaler, run_folder, STOP_AT, &seen);
    bb_dataset *dataset;
    CHECK(bb_byte_shard_dataset_open(shard_folder, SEQ_LEN, 1, 0, 1, &dataset, &error));

    CHECK(bb_trainer_train(trainer, dataset, &error));
    expect(bb_trainer_step(trainer) == STOP_AT, "it stopped at STOP_AT");
    expect(seen.last_loss < seen.first_loss, "the loss falls");

    bb_dataset_close(dataset);
    bb_trainer_free(trainer);
    bb_loss_scaler_free(scaler);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
}

/* Continues in new objects. With the optimizer's state the run is bit-identical to one that never stopped; without it (after a
 * change of optimizer, for example) the step and the data continue and the moments start fresh. */
static void resume(bb_device *device, const char *shard_folder, const char *run_folder, bool load_opt_state,
                   const char *out_folder) {
    progress seen = {0};
    bb_model *model = create_model(device);
    bb_optimizer *optimizer = create_optimizer(model);
    bb_trainer *trainer = create_trainer(model, optimizer, NULL, out_folder, 0, &seen);
    bb_dataset *dataset;
    CHECK(bb_byte_shard_dataset_open(shard_folder, SEQ_LEN, 1, 0, 1, &dataset, &error));

    CHECK(bb_trainer_resume(trainer, run_folder, load_opt_state, &error));
    expect(bb_trainer_step(trainer) == STOP_AT, "it continues where the other stopped");
    CHECK(bb_trainer_train(trainer, dataset, &error));
    expect(bb_trainer_step(trainer) == STEPS, "it reached the last step");
    expect(seen.last_loss < 4.0, "it kept what it had learned (an untrained model has 5.5 nats)");

    bb_dataset_close(dataset);
    bb_trainer_free(trainer);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
}

static void schedules(void) {
    const bb_lr_plan plan = {
        .schedule = BB_LR_COSINE, .base_lr = 2e-4, .min_factor = 0.1, .warmup_steps = 6000, .total_steps = 200000};
    double lr = bb_lr_for_step(&plan, /*step*/ 1000);
    expect(fabs(lr - 2e-4 * 1001 / 6000) < 1e-12, "warm-up is linear");
    int seq_len = bb_seq_len_for_step(/*step*/ 1000, /*total_steps*/ 200000, /*cap*/ 8192);
    expect(seq_len == 2048, "the curriculum begins with 2048");
    double bpb = bb_bits_per_byte(log(256.0));
    expect(fabs(bpb - 8.0) < 1e-12, "knowing nothing costs 8 bits per byte");
    printf("at step 1000 of 200000: learning rate %.3e, sequences of %d bytes\n", lr, seq_len);
}

/* ---- Using what was trained --------------------------------------------------------------------------------------------- */

static bool print_byte(void *user, uint8_t byte) {
    (void)user;
    putchar(byte);
    return true;
}

/* ---- Many texts at once ------------------------------------------------------------------------------------------------- */

static bool take_batch_byte(void *user, const bb_batch_byte *byte) {
    (void)byte; /* byte->byte; byte->logprob; byte->top, the likeliest */
    ++*(int *)user;
    return true; /* false would end this text */
}

static void score_and_generate_many(bb_model *model) {
    const char *texts[] = {"The old mill stood by the river.", "zqx 7#!? vvk"};
    bb_score_text scores[2] = {{.bits = 0}};
    bb_score_options score;
    bb_score_options_default(&score);
    for (int i = 0; i < 2; i++) scores[i].text = (bb_bytes){(const uint8_t *)texts[i], strlen(texts[i])};
    CHECK(bb_score(model, scores, 2, &score, &error));
    double likely = scores[0].bits / (double)scores[0].text.size, odd = scores[1].bits / (double)scores[1].text.size;
    printf("%.2f bits per byte for a text like those it read, %.2f for another\n", likely, odd);
    expect(likely < odd, "it knows its texts");

    bb_batch *batch;
    bb_batch_options batch_options;
    bb_batch_options_default(&batch_options);
    CHECK(bb_batch_open(model, &batch_options, &batch, &error));
    int counts[4] = {0};
    for (int i = 0; i < 4; i++) {
        bb_generate_options options;
        bb_generate_options_default(&options);
        options.max_new_bytes = 20;
        options.seed = (uint64_t)i;
        bb_batch_request request;
        bb_batch_request_default(&request);
        request.prompt = (bb_bytes){(const uint8_t *)"The ", 4};
        request.options = &options;
        request.on_byte = take_batch_byte;
        request.user = &counts[i];
        int64_t id;
        CHECK(bb_batch_add(batch, &request, &id, &error)); /* more may be added between steps */
    }
    for (bool more = true; more;) CHECK(bb_batch_step(batch, &more, &error));
    bb_batch_close(batch);
    for (int i = 0; i < 4; i++) expect(counts[i] == 20, "each text is whole");
}

static void evaluate_and_generate(bb_device *device, const char *run_folder, const char *val_file) {
    char checkpoint[4096];
    CHECK(bb_run_latest_checkpoint(run_folder, checkpoint, sizeof checkpoint, &error));
    bb_model *model;
    CHECK(bb_model_load(device, checkpoint, &model, &error));

    bb_eval_options eval;
    bb_eval_options_default(&eval);
    eval.seq_len = SEQ_LEN;
    bb_eval_result result;
    CHECK(bb_evaluate(model, val_file, &eval, &result, &error));
    printf("%.3f bits per byte over %lld unseen bytes\n", result.bpb, (long long)result.bytes);
    expect(result.bpb < 4.0, "it learned something");

    const char *prompt = "The old mill ";
    bb_generate_options generate;
    bb_generate_options_default(&generate);
    generate.max_new_bytes = 60;
    generate.temperature = 0.7;
    generate.on_byte = print_byte;
    bb_generate_metrics metrics;
    printf("it writes: %s", prompt);
    CHECK(bb_generate(model, (const uint8_t *)prompt, strlen(prompt), &generate, &metrics, &error));
    putchar('\n');
    expect(metrics.new_bytes == generate.max_new_bytes, "it generated all requested bytes");
    score_and_generate_many(model);
    bb_model_free(model);
}

int main(int argc, char **argv) {
    char own_folder[4096];
    const char *tmp = getenv("TMPDIR");
    snprintf(own_folder, sizeof own_folder, "%s/bitbyte-quick-start.XXXXXX", tmp ? tmp : "/tmp");
    const char *folder = argc > 1 ? argv[1] : mkdtemp(own_folder);
    if (!folder || (mkdir(folder, 0777) != 0 && errno != EEXIST)) {
        perror(folder ? folder : own_folder);
        return 1;
    }
    char *text = strdup(in_folder(folder, "text.txt")), *shards = strdup(in_folder(folder, "data"));
    char *run = strdup(in_folder(folder, "run")), *fresh_moments = strdup(in_folder(folder, "run-fresh-moments"));
    expect(text && shards && run && fresh_moments, "there is memory for four names");

    bb_device *device;
    CHECK(bb_device_open("cpu", /*threads: all*/ 0, &device, &error));
    printf("BitByte %s on %s: %s\n", bb_version(), bb_device_name(device), bb_device_description(device));

    write_text(text);
    pack_shards(text, shards);
    read_batches(shards, text);
    quantize(device);
    run_a_bitlinear_layer(device);
    schedules();
    train(device, shards, run);
    resume(device, shards, run, /*load_opt_state*/ false, fresh_moments);
    resume(device, shards, run, /*load_opt_state*/ true, run);
    evaluate_and_generate(device, run, in_folder(shards, "val_00000.bin"));

    bb_device_close(device);
    printf("all files are in %s\n", folder);
    free(text);
    free(shards);
    free(run);
    free(fresh_moments);
    return 0;
}
