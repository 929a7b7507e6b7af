// SPDX-License-Identifier: MIT
/* Calls every function of bitbyte.h with NULL for each pointer that it needs, and with numbers out of range: BB_ERR_ARGUMENT
 * that names the argument, and no crash. tests/test_public_header.sh checks that each function is tested here. */
#include <math.h>
#include <string.h>

#include "scratch.h"
#include "support.h"

enum { B = 1, T = 16, ROWS = 2, IN = 8, OUT = 4 };

static struct fixture {
    bb_device *device;
    bb_dist *dist;
    bb_config config;
    bb_model *model, *other;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler;
    bb_trainer *trainer;
    bb_dataset *dataset;
    bb_session *session;
    bb_bitlinear *layer;
    char data[512], model_path[512];
} f;

static int set_up(void **state) {
    if (scratch_create(state) != 0) return -1;
    char text[4096];
    memset(text, 'a', sizeof text);
    snprintf(f.data, sizeof f.data, "%s", scratch_path("data.txt"));
    snprintf(f.model_path, sizeof f.model_path, "%s", scratch_path("model.safetensors"));
    assert_true(scratch_write(f.data, text, sizeof text));
    bb_config_default(&f.config);
    f.config.n_layer = 1;
    f.config.d_model = 16;
    f.config.n_head = f.config.n_kv_head = 2;
    f.config.d_ff = 16;
    bb_optimizer_options optimizer;
    bb_optimizer_options_default(&optimizer);
    bb_train_options train;
    bb_train_options_default(&train);
    train.steps = 2;
    train.seq_len = T;
    bb_session_options session;
    bb_session_options_default(&session);
    session.context_length = 32;
    assert_ok(bb_device_open("ref", 1, &f.device, &test_error));
    assert_ok(bb_dist_open("single", &f.dist, &test_error));
    assert_ok(bb_model_create(f.device, &f.config, 1, &f.model, &test_error));
    assert_ok(bb_model_create(f.device, &f.config, 2, &f.other, &test_error));
    assert_ok(bb_model_save(f.model, f.model_path, &test_error));
    assert_ok(bb_optimizer_create(f.model, &optimizer, &f.optimizer, &test_error));
    assert_ok(bb_loss_scaler_create(1024, 10, true, &f.scaler, &test_error));
    assert_ok(bb_trainer_create(f.model, f.optimizer, f.scaler, &train, &f.trainer, &test_error));
    assert_ok(bb_byte_shard_dataset_open(f.data, T, 1, 0, 1, &f.dataset, &test_error));
    assert_ok(bb_session_open(f.model, &session, &f.session, &test_error));
    assert_ok(bb_bitlinear_create(f.device,
                                  &(bb_bitlinear_options){sizeof(bb_bitlinear_options), IN, OUT, true, BB_STE_IDENTITY, 1},
                                  &f.layer, &test_error));
    return 0;
}

static int tear_down(void **state) {
    bb_bitlinear_free(f.layer);
    bb_session_close(f.session);
    bb_dataset_close(f.dataset);
    bb_trainer_free(f.trainer);
    bb_loss_scaler_free(f.scaler);
    bb_optimizer_free(f.optimizer);
    bb_model_free(f.other);
    bb_model_free(f.model);
    bb_dist_close(f.dist);
    bb_device_close(f.device);
    return scratch_remove(state);
}

/* The call fails with BB_ERR_ARGUMENT and a message that has `part`; and with no bb_error to fill, too. E is the error. */
#define REFUSED(part, call)                                                                                                    \
    do {                                                                                                                       \
        bb_error *E = &test_error;                                                                                             \
        assert_fails(call, BB_ERR_ARGUMENT, part);                                                                             \
        E = NULL;                                                                                                              \
        assert_int_equal(call, BB_ERR_ARGUMENT);                                                                               \
        (void)E;                                                                                                               \
    } while (0)

static void device_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_device *out = f.device;
    uint64_t total = 1, available = 1;
    REFUSED("no device is named", bb_device_open(NULL, 0, &out, E));
    assert_null(out);
    REFUSED("out is NULL", bb_device_open("ref", 0, NULL, E));
    REFUSED("threads is -1", bb_device_open("ref", -1, &out, E));
    assert_null(bb_device_name(NULL));
    assert_int_equal(bb_device_threads(NULL), 0);
    assert_null(bb_device_description(NULL));
    assert_null(bb_device_activations(NULL));
    REFUSED("device is NULL", bb_device_set_activations(NULL, "f32", E));
    REFUSED("type is NULL", bb_device_set_activations(f.device, NULL, E));
    REFUSED("expected f32, bf16 or fp16", bb_device_set_activations(f.device, "f64", E));
    bb_device_memory(NULL, &total, &available);
    assert_true(total == 0 && available == 0);
    bb_device_memory(f.device, NULL, NULL);
    bb_host_memory_bytes(NULL, NULL);
    bb_host_memory_bytes(&total, &available);
    assert_true(available <= total);
    bb_device_close(NULL);
    assert_null(bb_device_known(-1, NULL));
    assert_string_equal(bb_device_known(0, NULL), "cpu");
    assert_string_equal(bb_status_name((bb_status)99), "unknown");
    assert_non_null(bb_version());
}

static void dist_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_dist *out;
    bb_device *device = f.device;
    uint64_t value;
    REFUSED("dist is NULL", bb_device_open_for_rank("ref", 1, NULL, &device, E));
    assert_null(device);
    REFUSED("out is NULL", bb_device_open_for_rank("ref", 1, f.dist, NULL, E));
    REFUSED("no device is named", bb_device_open_for_rank("such", 1, f.dist, &device, E));
    REFUSED("engine is NULL", bb_dist_open(NULL, &out, E));
    REFUSED("out is NULL", bb_dist_open("single", NULL, E));
    REFUSED("dist is NULL", bb_dist_agree(NULL, BB_OK, E));
    REFUSED("dist is NULL", bb_dist_all_gather_u64(NULL, 1, &value, E));
    REFUSED("values is NULL", bb_dist_all_gather_u64(f.dist, 1, NULL, E));
    assert_int_equal(bb_dist_rank(NULL), 0);
    assert_int_equal(bb_dist_size(NULL), 0);
    assert_int_equal(bb_dist_local_size(NULL), 0);
    assert_int_equal(bb_dist_threads(NULL), 0);
    assert_string_equal(bb_dist_host(NULL, 0), "?");
    assert_true(bb_dist_wait_seconds(NULL) <= 0);
    bb_dist_set_timeout(NULL, 1);
    bb_dist_wait_to_report(NULL);
    bb_dist_close(NULL);
    /* bb_dist_abort ends the process, with NULL as well: not called here. */
}

static void config_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_config config;
    bb_memory_estimate estimate;
    bb_memory_request request = {
        .struct_size = sizeof(bb_memory_request), .optim = BB_OPTIM_ADAMW, .batch_size = 1, .seq_len = 1};
    bb_train_options train;
    bb_optimizer_options optimizer;
    bb_train_options_default(&train);
    bb_optimizer_options_default(&optimizer);
    bb_config_default(NULL);
    REFUSED("config is NULL", bb_config_check(NULL, E));
    assert_int_equal(bb_config_parameters(NULL), 0);
    config = f.config;
    config.n_head = 0;
    assert_int_equal(bb_config_parameters(&config), 0); /* and no division by it */
    REFUSED("path is NULL", bb_config_load(NULL, NULL, &config, NULL, E));
    REFUSED("out is NULL", bb_config_load(f.model_path, NULL, NULL, NULL, E));
    REFUSED("device is NULL", bb_memory_predict(NULL, &f.config, &request, &estimate, E));
    REFUSED("config is NULL", bb_memory_predict(f.device, NULL, &request, &estimate, E));
    REFUSED("request is NULL", bb_memory_predict(f.device, &f.config, NULL, &estimate, E));
    REFUSED("out is NULL", bb_memory_predict(f.device, &f.config, &request, NULL, E));
    request.optim = (bb_optimizer_kind)9;
    REFUSED("optimizer kind 9", bb_memory_predict(f.device, &f.config, &request, &estimate, E));
    request.optim = BB_OPTIM_ADAMW;
    request.batch_size = 0;
    REFUSED("batch_size 0", bb_memory_predict(f.device, &f.config, &request, &estimate, E));
    REFUSED("config is NULL", bb_memory_predict_rank(NULL, &train, &optimizer, &estimate, E));
    REFUSED("options is NULL", bb_memory_predict_rank(&f.config, NULL, &optimizer, &estimate, E));
    REFUSED("optimizer is NULL", bb_memory_predict_rank(&f.config, &train, NULL, &estimate, E));
    REFUSED("estimate is NULL", bb_memory_predict_rank(&f.config, &train, &optimizer, NULL, E));
    train.batch_size = 0;
    REFUSED("batch_size 0", bb_memory_predict_rank(&f.config, &train, &optimizer, &estimate, E));
}

static void profile_and_file_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_device *profiled = f.device;
    char *text;
    REFUSED("device is NULL", bb_profile_open(NULL, &profiled, E));
    REFUSED("out is NULL", bb_profile_open(f.device, NULL, E));
    REFUSED("profiled is NULL", bb_profile_start(NULL, E));
    REFUSED("is not profiled", bb_profile_start(f.device, E));
    REFUSED("profiled is NULL", bb_profile_report(NULL, &f.config, &text, E));
    REFUSED("config is NULL", bb_profile_report(f.device, NULL, &text, E));
    REFUSED("json is NULL", bb_profile_report(f.device, &f.config, NULL, E));
    REFUSED("path is NULL", bb_output_check(NULL, E));
    REFUSED("path is NULL", bb_checkpoint_config(NULL, &text, E));
    REFUSED("text is NULL", bb_checkpoint_config(f.model_path, NULL, E));
    assert_true(bb_dataset_epochs(NULL, T, 1) <= 0);
    assert_true(bb_dataset_epochs(f.dataset, 0, 1) <= 0);
    assert_int_equal(bb_trainer_sampling(NULL), 0);
}

static void model_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_model *out = f.model;
    bb_tensor_info info;
    float values[256 * T];
    uint8_t x[T] = {0};
    double loss;
    const bb_train_batch batch = {x, x, B, T}, no_x = {NULL, x, B, T}, no_y = {x, NULL, B, T};
    const char *name = "norm_f.weight";
    REFUSED("device is NULL", bb_model_create(NULL, &f.config, 1, &out, E));
    REFUSED("config is NULL", bb_model_create(f.device, NULL, 1, &out, E));
    REFUSED("out is NULL", bb_model_create(f.device, &f.config, 1, NULL, E));
    REFUSED("device is NULL", bb_model_load(NULL, f.model_path, &out, E));
    assert_null(out);
    REFUSED("path is NULL", bb_model_load(f.device, NULL, &out, E));
    REFUSED("out is NULL", bb_model_load(f.device, f.model_path, NULL, E));
    REFUSED("device is NULL", bb_model_load_for_inference(NULL, f.model_path, &out, E));
    REFUSED("path is NULL", bb_model_load_for_inference(f.device, NULL, &out, E));
    REFUSED("out is NULL", bb_model_load_for_inference(f.device, f.model_path, NULL, E));
    bb_import_options import;
    bb_import_options_default(NULL);
    bb_import_options_default(&import);
    assert_false(bb_is_hf_folder(NULL));
    assert_null(bb_export_format_for(NULL));
    REFUSED("device is NULL", bb_model_import(NULL, f.model_path, &import, &out, E));
    REFUSED("path is NULL", bb_model_import(f.device, NULL, &import, &out, E));
    REFUSED("options is NULL", bb_model_import(f.device, f.model_path, NULL, &out, E));
    REFUSED("out is NULL", bb_model_import(f.device, f.model_path, &import, NULL, E));
    REFUSED("model is NULL", bb_model_save(NULL, f.model_path, E));
    REFUSED("path is NULL", bb_model_save(f.model, NULL, E));
    REFUSED("model is NULL", bb_model_export_packed(NULL, f.model_path, E));
    REFUSED("path is NULL", bb_model_export_packed(f.model, NULL, E));
    bb_export_options export_options;
    const char *target = scratch_path("exported");
    bb_export_options_default(NULL);
    bb_export_options_default(&export_options);
    REFUSED("device is NULL", bb_export(NULL, f.model_path, target, &export_options, E));
    REFUSED("model is NULL", bb_export(f.device, NULL, target, &export_options, E));
    REFUSED("out is NULL", bb_export(f.device, f.model_path, NULL, &export_options, E));
    REFUSED("options is NULL", bb_export(f.device, f.model_path, target, NULL, E));
    assert_null(bb_export_format_name(-1));
    assert_null(bb_export_format_name(999));
    bb_model_free(NULL);
    assert_null(bb_model_config(NULL));
    assert_int_equal(bb_model_parameters(NULL), 0);
    assert_int_equal(bb_model_trained_length(NULL), 0);
    REFUSED("chat_template is NULL", bb_chat_template_check(NULL, E));
    assert_null(bb_model_chat_template(NULL));
    REFUSED("model is NULL", bb_model_set_chat_template(NULL, "{role}: {content};", E));
    assert_int_equal(bb_model_tensor_count(NULL), 0);
    REFUSED("model is NULL", bb_model_tensor_info(NULL, 0, &info, E));
    REFUSED("out is NULL", bb_model_tensor_info(f.model, 0, NULL, E));
    REFUSED("index -1", bb_model_tensor_info(f.model, -1, &info, E));
    REFUSED("model is NULL", bb_model_get_tensor(NULL, name, values, 16, E));
    REFUSED("name is NULL", bb_model_get_tensor(f.model, NULL, values, 16, E));
    REFUSED("out is NULL", bb_model_get_tensor(f.model, name, NULL, 16, E));
    REFUSED("16 elements, not 15", bb_model_get_tensor(f.model, name, values, 15, E));
    REFUSED("model is NULL", bb_model_set_tensor(NULL, name, values, 16, E));
    REFUSED("name is NULL", bb_model_set_tensor(f.model, NULL, values, 16, E));
    REFUSED("values is NULL", bb_model_set_tensor(f.model, name, NULL, 16, E));
    REFUSED("model is NULL", bb_model_get_gradient(NULL, name, values, 16, E));
    REFUSED("name is NULL", bb_model_get_gradient(f.model, NULL, values, 16, E));
    REFUSED("out is NULL", bb_model_get_gradient(f.model, name, NULL, 16, E));
    REFUSED("model is NULL", bb_model_reserve(NULL, 1, 1, false, false, E));
    REFUSED("batch_size -1", bb_model_reserve(f.model, -1, 1, false, false, E));
    REFUSED("exceeds the maximum size of a micro-batch", bb_model_reserve(f.model, INT32_MAX, INT32_MAX, false, false, E));
    REFUSED("model is NULL", bb_model_forward(NULL, x, B, T, values, E));
    REFUSED("x is NULL", bb_model_forward(f.model, NULL, B, T, values, E));
    REFUSED("logits is NULL", bb_model_forward(f.model, x, B, T, NULL, E));
    REFUSED("seq_len 0", bb_model_forward(f.model, x, B, 0, values, E));
    REFUSED("model is NULL", bb_model_loss(NULL, &batch, &loss, E));
    REFUSED("batch is NULL", bb_model_loss(f.model, NULL, &loss, E));
    REFUSED("batch is NULL", bb_model_loss_backward(f.model, NULL, 1, &loss, E));
    REFUSED("x is NULL", bb_model_loss(f.model, &no_x, &loss, E));
    REFUSED("y is NULL", bb_model_loss(f.model, &no_y, &loss, E));
    REFUSED("loss is NULL", bb_model_loss(f.model, &batch, NULL, E));
    REFUSED("model is NULL", bb_model_loss_backward(NULL, &batch, 1, &loss, E));
    REFUSED("x is NULL", bb_model_loss_backward(f.model, &no_x, 1, &loss, E));
    REFUSED("y is NULL", bb_model_loss_backward(f.model, &no_y, 1, &loss, E));
    REFUSED("loss is NULL", bb_model_loss_backward(f.model, &batch, 1, NULL, E));
    REFUSED("scale nan", bb_model_loss_backward(f.model, &batch, (double)NAN, &loss, E));
    REFUSED("model is NULL", bb_model_zero_gradients(NULL, E));
}

static void layer_calls_refuse_bad_arguments(void **state) {
    (void)state;
    const float x[ROWS * IN] = {0};
    float y[ROWS * IN], w[IN * OUT], scale[ROWS];
    int8_t q[ROWS * IN];
    bb_bitlinear *out = f.layer;
    const bb_bitlinear_options good = {sizeof(bb_bitlinear_options), IN, OUT, true, BB_STE_IDENTITY, 1},
                               empty = {sizeof(bb_bitlinear_options), 0, OUT, true, BB_STE_IDENTITY, 1},
                               unknown = {sizeof(bb_bitlinear_options), IN, OUT, true, (bb_ste)7, 1};
    REFUSED("device is NULL", bb_ternary_quantize(NULL, x, ROWS, IN, q, scale, E));
    REFUSED("w is NULL", bb_ternary_quantize(f.device, NULL, ROWS, IN, q, scale, E));
    REFUSED("q is NULL", bb_ternary_quantize(f.device, x, ROWS, IN, NULL, scale, E));
    REFUSED("scale is NULL", bb_ternary_quantize(f.device, x, ROWS, IN, q, NULL, E));
    REFUSED("a matrix of 0 x 8", bb_ternary_quantize(f.device, x, 0, IN, q, scale, E));
    REFUSED("at most 2^40", bb_ternary_quantize(f.device, x, INT64_MAX, INT64_MAX, q, scale, E));
    REFUSED("device is NULL", bb_act_quantize(NULL, x, ROWS, IN, q, scale, E));
    REFUSED("x is NULL", bb_act_quantize(f.device, NULL, ROWS, IN, q, scale, E));
    REFUSED("q is NULL", bb_act_quantize(f.device, x, ROWS, IN, NULL, scale, E));
    REFUSED("scale is NULL", bb_act_quantize(f.device, x, ROWS, IN, q, NULL, E));
    REFUSED("a matrix of 2 x -8", bb_act_quantize(f.device, x, ROWS, -IN, q, scale, E));
    REFUSED("device is NULL", bb_bitlinear_create(NULL, &good, &out, E));
    assert_null(out);
    REFUSED("options is NULL", bb_bitlinear_create(f.device, NULL, &out, E));
    REFUSED("out is NULL", bb_bitlinear_create(f.device, &good, NULL, E));
    REFUSED("must be at least 1", bb_bitlinear_create(f.device, &empty, &out, E));
    REFUSED("ste is 7", bb_bitlinear_create(f.device, &unknown, &out, E));
    bb_bitlinear_free(NULL);
    REFUSED("layer is NULL", bb_bitlinear_get_weight(NULL, w, E));
    REFUSED("weight is NULL", bb_bitlinear_get_weight(f.layer, NULL, E));
    REFUSED("layer is NULL", bb_bitlinear_set_weight(NULL, w, E));
    REFUSED("weight is NULL", bb_bitlinear_set_weight(f.layer, NULL, E));
    REFUSED("layer is NULL", bb_bitlinear_forward(NULL, x, ROWS, y, E));
    REFUSED("x is NULL", bb_bitlinear_forward(f.layer, NULL, ROWS, y, E));
    REFUSED("y is NULL", bb_bitlinear_forward(f.layer, x, ROWS, NULL, E));
    REFUSED("rows 0", bb_bitlinear_forward(f.layer, x, 0, y, E));
    REFUSED("rows 9223372036854775807", bb_bitlinear_forward(f.layer, x, INT64_MAX, y, E));
    REFUSED("layer is NULL", bb_bitlinear_backward(NULL, y, ROWS, NULL, w, E));
    REFUSED("dy is NULL", bb_bitlinear_backward(f.layer, NULL, ROWS, NULL, w, E));
}

static void dataset_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_dataset *out = f.dataset;
    uint8_t x[T], y[T];
    REFUSED("data is NULL", bb_byte_shard_dataset_open(NULL, T, 1, 0, 1, &out, E));
    assert_null(out);
    REFUSED("out is NULL", bb_byte_shard_dataset_open(f.data, T, 1, 0, 1, NULL, E));
    REFUSED("seq_len", bb_byte_shard_dataset_open(f.data, 0, 1, 0, 1, &out, E));
    REFUSED("rank", bb_byte_shard_dataset_open(f.data, T, 1, 1, 1, &out, E));
    REFUSED("path is NULL", bb_byte_stream_dataset_open(NULL, T, 1, 0, 1, &out, E));
    REFUSED("out is NULL", bb_byte_stream_dataset_open(f.data, T, 1, 0, 1, NULL, E));
    REFUSED("world_size", bb_byte_stream_dataset_open(f.data, T, 1, 0, 0, &out, E));
    bb_dataset_close(NULL);
    REFUSED("dataset is NULL", bb_dataset_set_seq_len(NULL, T, E));
    REFUSED("seq_len", bb_dataset_set_seq_len(f.dataset, -1, E));
    assert_int_equal(bb_dataset_seq_len(NULL), 0);
    assert_int_equal(bb_dataset_get_info(NULL).bytes, 0);
    REFUSED("dataset is NULL", bb_dataset_batch(NULL, 1, 1, 0, x, y, E));
    REFUSED("x is NULL", bb_dataset_batch(f.dataset, 1, 1, 0, NULL, y, E));
    REFUSED("y is NULL", bb_dataset_batch(f.dataset, 1, 1, 0, x, NULL, E));
    REFUSED("micro", bb_dataset_batch(f.dataset, 1, 1, 1, x, y, E));
    bb_dataset_next_step(NULL, 1, 1);
    bb_dataset_next_step(f.dataset, -1, 1);
    assert_int_equal(bb_dataset_position(f.dataset), 0);
    assert_int_equal(bb_dataset_position(NULL), 0);
    bb_dataset_set_position(NULL, 1);
}

static void pack_calls_refuse_bad_arguments(void **state) {
    (void)state;
    char *text;
    size_t size;
    REFUSED("path is NULL", bb_read_text(NULL, NULL, &text, &size, E));
    REFUSED("text is NULL", bb_read_text(f.data, NULL, NULL, &size, E));
    REFUSED("size is NULL", bb_read_text(f.data, NULL, &text, NULL, E));
    bb_text_reader *reader;
    char byte;
    REFUSED("out is NULL", bb_text_reader_open(f.data, NULL, NULL, E));
    REFUSED("path is NULL", bb_text_reader_open(NULL, NULL, &reader, E));
    assert_ok(bb_text_reader_open(f.data, NULL, &reader, &test_error));
    REFUSED("reader is NULL", bb_text_reader_read(NULL, &byte, 1, &size, E));
    REFUSED("buffer is NULL", bb_text_reader_read(reader, NULL, 1, &size, E));
    REFUSED("size is NULL", bb_text_reader_read(reader, &byte, 1, NULL, E));
    REFUSED("capacity is 0", bb_text_reader_read(reader, &byte, 0, &size, E));
    bb_text_reader_close(reader);
    bb_text_reader_close(NULL);
    const char *input = f.data;
    bb_pack_options good, o;
    bb_pack_options_default(NULL);
    bb_pack_options_default(&good);
    good.inputs = &input;
    good.input_count = 1;
    good.out_dir = scratch_path("packed");
    REFUSED("options is NULL", bb_pack(NULL, NULL, E));
    o = good, o.inputs = NULL;
    REFUSED("inputs", bb_pack(&o, NULL, E));
    o = good, o.out_dir = NULL;
    REFUSED("out_dir", bb_pack(&o, NULL, E));
    o = good, o.exts = NULL;
    REFUSED("exts", bb_pack(&o, NULL, E));
    o = good, o.json_keys = NULL;
    REFUSED("json_keys", bb_pack(&o, NULL, E));
    o = good, o.val_frac = -1;
    REFUSED("val_frac", bb_pack(&o, NULL, E));
    input = NULL;
    REFUSED("input 0 is NULL", bb_pack(&good, NULL, E));
}

static void optimizer_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_optimizer *out = f.optimizer;
    bb_loss_scaler *scaler = f.scaler;
    bb_optimizer_options good, o;
    double norm;
    bool applied = true;
    assert_true(isnan(bb_bits_per_byte((double)NAN)));
    assert_true(isfinite(bb_lr_for_step(&(bb_lr_plan){.base_lr = 1}, -1)));
    assert_true(isnan(bb_lr_for_step(NULL, 0)));
    assert_true(isfinite(bb_lr_for_step(&(bb_lr_plan){.base_lr = 1, .schedule = BB_LR_LINEAR, .cooldown_frac = 1}, 0)));
    assert_int_equal(bb_train_lr_plan(NULL, 1).total_steps, 0);
    bb_recipe_options(BB_RECIPE_BITBYTE, NULL, NULL);
    assert_int_equal(bb_seq_len_for_step(-1, 0, 0), 2048);
    bb_optimizer_options_default(NULL);
    bb_optimizer_options_default(&good);
    REFUSED("model is NULL", bb_optimizer_create(NULL, &good, &out, E));
    assert_null(out);
    REFUSED("options is NULL", bb_optimizer_create(f.model, NULL, &out, E));
    REFUSED("out is NULL", bb_optimizer_create(f.model, &good, NULL, E));
    o = good, o.lr = -1;
    REFUSED("lr -1", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.lr = (double)NAN;
    REFUSED("lr nan", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.beta2 = 1;
    REFUSED("betas", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.kind = BB_OPTIM_MUON, o.momentum = 1;
    REFUSED("momentum 1", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.kind = BB_OPTIM_MUON, o.muon_iterations = 0;
    REFUSED("muon_iterations 0", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.kind = BB_OPTIM_MUON, o.muon_iterations = 6;
    REFUSED("muon_iterations 6", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.kind = BB_OPTIM_MUON, o.lr_adam = (double)NAN;
    REFUSED("lr_adam nan", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.eps = 0;
    REFUSED("eps", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.weight_decay = -1;
    REFUSED("weight decay", bb_optimizer_create(f.model, &o, &out, E));
    o = good, o.kind = (bb_optimizer_kind)5;
    REFUSED("optimizer kind 5", bb_optimizer_create(f.model, &o, &out, E));
    bb_optimizer_free(NULL);
    assert_false(bb_optimizer_is_8bit(NULL));
    assert_int_equal(bb_optimizer_state_bytes(NULL), 0);
    REFUSED("optimizer is NULL", bb_optimizer_step(NULL, 1, 1, 1, &norm, &applied, E));
    REFUSED("grad_norm is NULL", bb_optimizer_step(f.optimizer, 1, 1, 1, NULL, &applied, E));
    REFUSED("applied is NULL", bb_optimizer_step(f.optimizer, 1, 1, 1, &norm, NULL, E));
    REFUSED("lr -1", bb_optimizer_step(f.optimizer, -1, 1, 1, &norm, &applied, E));
    assert_false(applied);
    REFUSED("max_norm -1", bb_optimizer_step(f.optimizer, 1, -1, 1, &norm, &applied, E));
    REFUSED("loss_scale 0", bb_optimizer_step(f.optimizer, 1, 1, 0, &norm, &applied, E));
    REFUSED("out is NULL", bb_loss_scaler_create(1, 1, true, NULL, E));
    REFUSED("initial_scale -1", bb_loss_scaler_create(-1, 1, true, &scaler, E));
    assert_null(scaler);
    bb_loss_scaler_free(NULL);
    assert_true(bb_loss_scaler_scale(NULL) >= 1 && bb_loss_scaler_scale(NULL) <= 1);
    bb_loss_scaler_update(NULL, true);
}

static bb_status load(void *user, const char *path, bb_error *err) {
    (void)user, (void)path, (void)err;
    return BB_OK;
}

static void training_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_trainer *out = f.trainer;
    bb_train_options good, o;
    double wait = 1, exposed = 1;
    char path[64];
    bb_train_options_default(NULL);
    bb_train_options_default(&good);
    REFUSED("model is NULL", bb_trainer_create(NULL, f.optimizer, f.scaler, &good, &out, E));
    assert_null(out);
    REFUSED("optimizer is NULL", bb_trainer_create(f.model, NULL, f.scaler, &good, &out, E));
    REFUSED("options is NULL", bb_trainer_create(f.model, f.optimizer, f.scaler, NULL, &out, E));
    REFUSED("out is NULL", bb_trainer_create(f.model, f.optimizer, f.scaler, &good, NULL, E));
    REFUSED("another model", bb_trainer_create(f.other, f.optimizer, NULL, &good, &out, E));
    o = good, o.steps = 0;
    REFUSED("steps 0", bb_trainer_create(f.model, f.optimizer, NULL, &o, &out, E));
    o = good, o.grad_clip = -1;
    REFUSED("grad_clip", bb_trainer_create(f.model, f.optimizer, NULL, &o, &out, E));
    o = good, o.lr_schedule = (bb_lr_schedule)4;
    REFUSED("lr_schedule 4", bb_trainer_create(f.model, f.optimizer, NULL, &o, &out, E));
    o = good, o.reduce = (bb_reduce)4;
    REFUSED("reduce 4", bb_trainer_create(f.model, f.optimizer, NULL, &o, &out, E));
    o = good, o.save_copy = (bb_save_copy)4;
    REFUSED("save_copy 4", bb_trainer_create(f.model, f.optimizer, NULL, &o, &out, E));
    bb_trainer_free(NULL);
    bb_plan plan;
    bb_config config;
    bb_plan_request request = {.struct_size = sizeof(bb_plan_request), .minutes = 1, .data_bytes = 1000};
    REFUSED("device is NULL", bb_plan_run(NULL, &request, &plan, E));
    REFUSED("request is NULL", bb_plan_run(f.device, NULL, &plan, E));
    REFUSED("out is NULL", bb_plan_run(f.device, &request, NULL, E));
    request.minutes = 0;
    REFUSED("minutes 0", bb_plan_run(f.device, &request, &plan, E));
    request = (bb_plan_request){.struct_size = sizeof(bb_plan_request), .minutes = 1, .data_bytes = 1};
    REFUSED("1 bytes of data", bb_plan_run(f.device, &request, &plan, E));
    REFUSED("device is NULL", bb_training_speed(NULL, &f.config, 1, &wait, E));
    REFUSED("config is NULL", bb_training_speed(f.device, NULL, 1, &wait, E));
    REFUSED("speed is NULL", bb_training_speed(f.device, &f.config, 1, NULL, E));
    REFUSED("seq_len 0", bb_training_speed(f.device, &f.config, 0, &wait, E));
    REFUSED("size is NULL", bb_config_of_size(NULL, &config, E));
    REFUSED("out is NULL", bb_config_of_size("1m", NULL, E));
    REFUSED("size '2m'", bb_config_of_size("2m", &config, E));
    REFUSED("trainer is NULL", bb_trainer_resume(NULL, f.model_path, true, E));
    REFUSED("path is NULL", bb_trainer_resume(f.trainer, NULL, true, E));
    REFUSED("trainer is NULL", bb_trainer_train(NULL, f.dataset, E));
    REFUSED("dataset is NULL", bb_trainer_train(f.trainer, NULL, E));
    bb_trainer_request_stop(NULL);
    bb_trainer_request_save(NULL);
    assert_int_equal(bb_trainer_failed_validations(NULL), 0);
    assert_fails(bb_trainer_log_sample(NULL, "", "", &test_error), BB_ERR_ARGUMENT, "trainer");
    assert_int_equal(bb_trainer_step(NULL), 0);
    assert_int_equal(bb_trainer_total_steps(NULL), 0);
    assert_null(bb_trainer_resumed_from(NULL));
    bb_trainer_wait_shares(NULL, &wait, &exposed);
    assert_true(wait <= 0 && exposed <= 0);
    bb_trainer_wait_shares(f.trainer, NULL, NULL);
    assert_false(bb_trainer_out_of_time(NULL));
    assert_false(bb_trainer_out_of_patience(NULL));
    assert_int_equal(bb_trainer_best_step(NULL, NULL), -1);
    REFUSED("run_dir is NULL", bb_run_latest_checkpoint(NULL, path, sizeof path, E));
    REFUSED("path is NULL", bb_run_latest_checkpoint(scratch_dir, NULL, 0, E));
    REFUSED("run_dir is NULL", bb_run_checkpoint_before(NULL, 1, path, sizeof path, E));
    REFUSED("path is NULL", bb_run_checkpoint_before(scratch_dir, 1, NULL, 0, E));
    REFUSED("given is NULL", bb_run_named_checkpoint(NULL, path, sizeof path, E));
    REFUSED("path is NULL", bb_run_named_checkpoint(scratch_dir, NULL, 0, E));
    REFUSED("run_dir is NULL", bb_run_latest_valid(NULL, load, NULL, NULL, E));
    REFUSED("load is NULL", bb_run_latest_valid(scratch_dir, NULL, NULL, NULL, E));
}

static void evaluation_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_eval_options good, o;
    bb_eval_result result;
    bb_eval_options_default(NULL);
    bb_eval_options_default(&good);
    REFUSED("model is NULL", bb_evaluate(NULL, f.data, &good, &result, E));
    REFUSED("data is NULL", bb_evaluate(f.model, NULL, &good, &result, E));
    REFUSED("options is NULL", bb_evaluate(f.model, f.data, NULL, &result, E));
    REFUSED("result is NULL", bb_evaluate(f.model, f.data, &good, NULL, E));
    o = good, o.seq_len = 0;
    REFUSED("seq_len 0", bb_evaluate(f.model, f.data, &o, &result, E));
    o = good, o.max_batches = -1;
    REFUSED("max_batches -1", bb_evaluate(f.model, f.data, &o, &result, E));
    o = good, o.cached = true, o.kv_cache = (bb_kv_type)9;
    REFUSED("type 9", bb_evaluate(f.model, f.data, &o, &result, E));
}

static void generation_calls_refuse_bad_arguments(void **state) {
    (void)state;
    const uint8_t byte = 'a';
    const bb_bytes nothing = {NULL, 1};
    bb_session *out = f.session;
    bb_session_options session;
    bb_generate_options good, o;
    bb_generate_options_default(NULL);
    bb_generate_options_default(&good);
    bb_session_options_default(NULL);
    bb_session_options_default(&session);
    REFUSED("model is NULL", bb_session_open(NULL, &session, &out, E));
    assert_null(out);
    REFUSED("options is NULL", bb_session_open(f.model, NULL, &out, E));
    REFUSED("out is NULL", bb_session_open(f.model, &session, NULL, E));
    session.context_length = -1;
    REFUSED("context_length -1", bb_session_open(f.model, &session, &out, E));
    bb_session_close(NULL);
    REFUSED("session is NULL", bb_session_feed(NULL, &byte, 1, E));
    REFUSED("bytes is NULL", bb_session_feed(f.session, NULL, 1, E));
    assert_ok(bb_session_feed(f.session, NULL, 0, &test_error));
    REFUSED("session is NULL", bb_session_generate(NULL, &good, NULL, E));
    REFUSED("options is NULL", bb_session_generate(f.session, NULL, NULL, E));
    o = good, o.stop_count = 1;
    REFUSED("stop_count is 1", bb_session_generate(f.session, &o, NULL, E));
    o = good, o.stop_count = 1, o.stops = &nothing;
    REFUSED("stop text 1 is NULL", bb_session_generate(f.session, &o, NULL, E));
    o = good, o.temperature = -1;
    REFUSED("temperature -1", bb_session_generate(f.session, &o, NULL, E));
    o = good, o.max_new_bytes = -1;
    REFUSED("max_new_bytes -1", bb_session_generate(f.session, &o, NULL, E));
    o = good, o.speculate = (bb_speculate)4;
    REFUSED("speculate 4", bb_session_generate(f.session, &o, NULL, E));
    assert_int_equal(bb_session_length(NULL), 0);
    REFUSED("session is NULL", bb_session_mark(NULL, E));
    REFUSED("session is NULL", bb_session_rewind(NULL, E));
    bb_session_clear(NULL);
    REFUSED("model is NULL", bb_generate(NULL, &byte, 1, &good, NULL, E));
    REFUSED("options is NULL", bb_generate(f.model, &byte, 1, NULL, NULL, E));
    REFUSED("bytes is NULL", bb_generate(f.model, NULL, 1, &good, NULL, E));
}

static void batch_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_batch *batch = NULL;
    bb_batch_options options;
    bb_generate_options good;
    bool more;
    int64_t id;
    bb_batch_options_default(NULL);
    bb_batch_options_default(&options);
    bb_generate_options_default(&good);
    const bb_batch_request request = {.struct_size = sizeof(bb_batch_request), .options = &good},
                           no_options = {.struct_size = sizeof(bb_batch_request)};
    REFUSED("model is NULL", bb_batch_open(NULL, &options, &batch, E));
    REFUSED("options is NULL", bb_batch_open(f.model, NULL, &batch, E));
    REFUSED("out is NULL", bb_batch_open(f.model, &options, NULL, E));
    options.keep = -1;
    REFUSED("keep -1", bb_batch_open(f.model, &options, &batch, E));
    bb_batch_options_default(&options);
    assert_ok(bb_batch_open(f.model, &options, &batch, &test_error));
    REFUSED("batch is NULL", bb_batch_add(NULL, &request, &id, E));
    REFUSED("request is NULL", bb_batch_add(batch, NULL, &id, E));
    REFUSED("id is NULL", bb_batch_add(batch, &request, NULL, E));
    REFUSED("options is NULL", bb_batch_add(batch, &no_options, &id, E));
    REFUSED("batch is NULL", bb_batch_step(NULL, &more, E));
    REFUSED("more is NULL", bb_batch_step(batch, NULL, E));
    bb_batch_cancel(NULL, 1);
    bb_batch_cancel(batch, 1);
    assert_int_equal(bb_batch_get_state(NULL).active, 0);
    bb_batch_close(batch);
    bb_batch_close(NULL);
}

static void score_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_score_options o;
    bb_score_text text = {.text = {NULL, 1}};
    bb_score_options_default(NULL);
    bb_score_options_default(&o);
    REFUSED("model is NULL", bb_score(NULL, &text, 1, &o, E));
    REFUSED("texts is NULL", bb_score(f.model, NULL, 1, &o, E));
    REFUSED("options is NULL", bb_score(f.model, &text, 1, NULL, E));
    REFUSED("text 0 or its context is NULL", bb_score(f.model, &text, 1, &o, E));
    REFUSED("count -1", bb_score(f.model, &text, -1, &o, E));
    o.seq_len = 1;
    REFUSED("seq_len 1", bb_score(f.model, &text, 0, &o, E));
}

static bool ignore_output(void *user, const uint8_t *bytes, size_t size) {
    (void)user;
    return bytes || !size;
}

static void compression_calls_refuse_bad_arguments(void **state) {
    (void)state;
    bb_compress_options good, o;
    bb_compressor *c = NULL;
    bb_decompressor *d = NULL;
    char *json = NULL;
    bb_compress_options_default(NULL);
    bb_compress_options_default(&good);
    REFUSED("on_output is NULL", bb_compressor_open(f.model, &good, &c, E));
    REFUSED("on_output is NULL", bb_decompressor_open(f.model, &good, &d, E));
    good.on_output = ignore_output;
    REFUSED("options is NULL", bb_compress_options_level(NULL, 1, E));
    REFUSED("level 0", bb_compress_options_level(&good, 0, E));
    REFUSED("level 10", bb_compress_options_level(&good, 10, E));
    REFUSED("model is NULL", bb_compressor_open(NULL, &good, &c, E));
    REFUSED("options is NULL", bb_compressor_open(f.model, NULL, &c, E));
    REFUSED("out is NULL", bb_compressor_open(f.model, &good, NULL, E));
    o = good, o.lanes = 65;
    REFUSED("lanes 65", bb_compressor_open(f.model, &o, &c, E));
    o = good, o.block_bytes = 100000;
    REFUSED("block_bytes 100000", bb_compressor_open(f.model, &o, &c, E));
    o = good, o.context_length = 1;
    REFUSED("context_length 1", bb_compressor_open(f.model, &o, &c, E));
    o = good, o.kv_cache = (bb_kv_type)7;
    REFUSED("kv_cache 7", bb_compressor_open(f.model, &o, &c, E));
    assert_ok(bb_compressor_open(f.model, &good, &c, &test_error));
    REFUSED("compressor is NULL", bb_compressor_write(NULL, NULL, 0, E));
    REFUSED("bytes is NULL", bb_compressor_write(c, NULL, 1, E));
    REFUSED("compressor is NULL", bb_compressor_finish(NULL, E));
    assert_ok(bb_compressor_finish(c, &test_error));
    REFUSED("the stream is finished", bb_compressor_finish(c, E));
    REFUSED("the stream is finished", bb_compressor_write(c, NULL, 0, E));
    bb_compressor_close(c);
    bb_compressor_close(NULL);
    REFUSED("model is NULL", bb_decompressor_open(NULL, &good, &d, E));
    REFUSED("options is NULL", bb_decompressor_open(f.model, NULL, &d, E));
    REFUSED("out is NULL", bb_decompressor_open(f.model, &good, NULL, E));
    assert_ok(bb_decompressor_open(f.model, &good, &d, &test_error));
    REFUSED("decompressor is NULL", bb_decompressor_write(NULL, NULL, 0, E));
    REFUSED("bytes is NULL", bb_decompressor_write(d, NULL, 1, E));
    REFUSED("decompressor is NULL", bb_decompressor_finish(NULL, E));
    REFUSED("decompressor is NULL", bb_decompressor_flush(NULL, E));
    REFUSED("model is NULL", bb_decompress_range(NULL, &good, "x", 0, 1, E));
    REFUSED("options is NULL", bb_decompress_range(f.model, NULL, "x", 0, 1, E));
    REFUSED("path is NULL", bb_decompress_range(f.model, &good, NULL, 0, 1, E));
    bb_decompressor_close(d);
    bb_decompressor_close(NULL);
    assert_false(bb_is_compressed(NULL, 4));
    REFUSED("json is NULL", bb_compressed_describe("x", NULL, E));
    REFUSED("path is NULL", bb_compressed_describe(NULL, &json, E));
}

static void information_calls_refuse_bad_arguments(void **state) {
    (void)state;
    char *json = NULL;
    bool good;
    bb_bench_options bench;
    bb_decode_bench_options decode;
    REFUSED("path is NULL", bb_describe_file(NULL, NULL, &json, E));
    REFUSED("json is NULL", bb_describe_file(f.model_path, NULL, NULL, E));
    REFUSED("path is NULL", bb_verify_file(NULL, NULL, NULL, NULL, &good, &json, E));
    REFUSED("good is NULL", bb_verify_file(f.model_path, NULL, NULL, NULL, NULL, &json, E));
    REFUSED("json is NULL", bb_verify_file(f.model_path, NULL, NULL, NULL, &good, NULL, E));
    bb_string_free(NULL);
    assert_null(bb_path_text(NULL));
    assert_null(bb_path_from_text(NULL));
    bb_bench_options_default(NULL);
    bb_bench_options_default(&bench);
    REFUSED("device is NULL", bb_bench(NULL, &bench, &json, E));
    REFUSED("options is NULL", bb_bench(f.device, NULL, &json, E));
    REFUSED("json is NULL", bb_bench(f.device, &bench, NULL, E));
    bench.shape = NULL;
    REFUSED("shape is NULL", bb_bench(f.device, &bench, &json, E));
    bb_decode_bench_options_default(NULL);
    bb_decode_bench_options_default(&decode);
    REFUSED("device is NULL", bb_bench_decode(NULL, &decode, &json, E));
    REFUSED("options is NULL", bb_bench_decode(f.device, NULL, &json, E));
    REFUSED("json is NULL", bb_bench_decode(f.device, &decode, NULL, E));
    decode.kv_cache = (bb_kv_type)9;
    REFUSED("kv_cache 9", bb_bench_decode(f.device, &decode, &json, E));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_calls_refuse_bad_arguments),      cmocka_unit_test(dist_calls_refuse_bad_arguments),
        cmocka_unit_test(config_calls_refuse_bad_arguments),      cmocka_unit_test(profile_and_file_calls_refuse_bad_arguments),
        cmocka_unit_test(model_calls_refuse_bad_arguments),       cmocka_unit_test(layer_calls_refuse_bad_arguments),
        cmocka_unit_test(dataset_calls_refuse_bad_arguments),     cmocka_unit_test(pack_calls_refuse_bad_arguments),
        cmocka_unit_test(optimizer_calls_refuse_bad_arguments),   cmocka_unit_test(training_calls_refuse_bad_arguments),
        cmocka_unit_test(evaluation_calls_refuse_bad_arguments),  cmocka_unit_test(generation_calls_refuse_bad_arguments),
        cmocka_unit_test(batch_calls_refuse_bad_arguments),       cmocka_unit_test(score_calls_refuse_bad_arguments),
        cmocka_unit_test(compression_calls_refuse_bad_arguments), cmocka_unit_test(information_calls_refuse_bad_arguments),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
