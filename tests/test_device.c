// SPDX-License-Identifier: MIT
/* Opening devices by name, and the host's processors and memory, read from folders that mimic control groups of both
 * versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "bitbyte.h"
#include "core/cpu_features.h"
#include "core/file.h"
#include "core/host.h"
#include "ops/cpu/device/cpu.h"
#include "ops/registry.h"
#include "scratch.h"

static void unknown_names_are_errors_that_list_the_known(void **state) {
    (void)state;
    const char *const names[] = {"gpu", "", NULL, "CPU"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bb_error err = {0};
        bb_device *device;
        assert_int_equal(bb_device_open(names[i], 0, &device, &err), BB_ERR_ARGUMENT);
        assert_null(device);
        assert_non_null(strstr(err.message, "\"cpu\""));
        assert_non_null(strstr(err.message, "\"ref\""));
    }
}

static const char *no_hardware(void) { return "there is no such hardware here; use cpu"; }

static bb_status never_opened(int threads, bb_device **out, bb_error *err) {
    (void)threads, (void)out, (void)err;
    fail_msg("an unavailable backend was opened");
    return BB_ERR_INTERNAL;
}

static int opened_threads;

static bb_status open_further(int threads, bb_device **out, bb_error *err) {
    opened_threads = threads;
    return bb_device_open_ref(threads, out, err);
}

static void further_backends_are_registered_by_name(void **state) {
    (void)state;
    static const bb_backend absent = {.name = "absent", .open = never_opened, .unavailable = no_hardware};
    static const bb_backend further = {.name = "further", .open = open_further}, twice = {.name = "cpu", .open = open_further};
    bb_error err = {0};
    bb_device *device;
    const char *why_not = "";
    assert_string_equal(bb_device_known(0, &why_not), "cpu");
    assert_null(why_not);
    assert_string_equal(bb_device_known(1, NULL), "cuda");
    assert_string_equal(bb_device_known(2, NULL), "ref");
    assert_null(bb_device_known(3, NULL));
    assert_null(bb_device_known(-1, NULL));
    assert_int_equal(bb_backend_register(&twice, &err), BB_ERR_ARGUMENT);
    assert_int_equal(bb_backend_register(&absent, &err), BB_OK);
    assert_int_equal(bb_backend_register(&further, &err), BB_OK);
    assert_string_equal(bb_device_known(3, &why_not), "absent");
    assert_string_equal(why_not, no_hardware());
    assert_string_equal(bb_device_known(4, &why_not), "further");
    assert_null(why_not);
    assert_int_equal(bb_device_open("absent", 1, &device, &err), BB_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "device \"absent\" cannot be used: there is no such hardware here; use cpu");
    assert_null(device);
    assert_int_equal(bb_device_open("further", 3, &device, &err), BB_OK);
    assert_int_equal(opened_threads, 3);
    bb_device_close(device);
    assert_int_equal(bb_device_open("gpu", 1, &device, &err), BB_ERR_ARGUMENT);
    assert_string_equal(err.message,
                        "no device is named \"gpu\"; there are \"cpu\", \"cuda\", \"ref\", \"absent\" and \"further\"");
    static const bb_backend more[BB_MAX_BACKENDS] = {{.name = "a"}, {.name = "b"}, {.name = "c"}, {.name = "d"}};
    for (int i = 0; i < BB_MAX_BACKENDS - 5; i++) assert_int_equal(bb_backend_register(&more[i], &err), BB_OK);
    assert_int_equal(bb_backend_register(&more[BB_MAX_BACKENDS - 5], &err), BB_ERR_UNSUPPORTED);
    assert_null(bb_device_known(BB_MAX_BACKENDS, NULL));
}

static void every_device_measures_its_peaks(void **state) {
    (void)state;
    const char *const names[] = {"cpu", "ref"};
    for (size_t i = 0; i < 2; i++) {
        bb_device *device;
        assert_int_equal(bb_device_open(names[i], 1, &device, NULL), BB_OK);
        bb_peaks peaks = {0};
        device->ops->measure_peaks(device, &peaks);
        assert_true(peaks.f32 > 0 && peaks.read_gb > 0);
        bb_device_close(device);
    }
}

static void impossible_thread_counts_are_errors(void **state) {
    (void)state;
    bb_error err = {0};
    bb_device *device;
    assert_int_equal(bb_device_open("cpu", -1, &device, &err), BB_ERR_ARGUMENT);
    assert_int_equal(bb_device_open("cpu", 100000, &device, &err), BB_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "100000"));
    assert_null(device);
}

static void a_level_that_is_none_is_an_error_that_lists_them(void **state) {
    (void)state;
    const char *set = getenv("BITBYTE_CPU");
    char before[32] = "";
    if (set) (void)snprintf(before, sizeof before, "%s", set);
    bb_error err = {0};
    bb_device *device;
    assert_int_equal(setenv("BITBYTE_CPU", "avx3", 1), 0);
    assert_int_equal(bb_device_open("cpu", 1, &device, &err), BB_ERR_ARGUMENT);
    assert_null(device);
    assert_non_null(strstr(err.message, "BITBYTE_CPU is \"avx3\""));
    for (int i = 0; i < BB_CPU_SETS; i++) assert_non_null(strstr(err.message, bb_cpu_sets[i].name));
    assert_int_equal(setenv("BITBYTE_CPU", before, 1), 0); /* empty is none */
    assert_int_equal(bb_device_open("cpu", 1, &device, &err), BB_OK);
    bb_device_close(device);
}

#ifdef __x86_64__
static void a_level_is_lowered_and_never_raised(void **state) {
    (void)state;
    bb_error err = {0};
    bb_cpu_choice choice;
    const unsigned avx512 = BB_CPU_AVX2 | BB_CPU_AVX512;
    assert_int_equal(bb_cpu_choose(avx512, NULL, &choice, &err), BB_OK);
    assert_string_equal(choice.set->name, "avx512");
    assert_false(choice.limited);
    assert_int_equal(bb_cpu_choose(avx512, "avx512", &choice, &err), BB_OK);
    assert_string_equal(choice.set->name, "avx512");
    assert_false(choice.limited);
    assert_int_equal(bb_cpu_choose(avx512, "generic", &choice, &err), BB_OK);
    assert_string_equal(choice.set->name, "generic");
    assert_int_equal(choice.features, 0);
    assert_true(choice.limited);
    assert_int_equal(bb_cpu_choose(BB_CPU_AVX2, "avx512", &choice, &err), BB_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "BITBYTE_CPU asks for avx512; the best set that this processor has is avx2");
}

/* Sets do not lie on one ladder: AVX-VNNI comes without AVX-512, and AVX-512 without AVX-VNNI. */
static void a_set_has_its_own_features_and_no_others(void **state) {
    (void)state;
    bb_cpu_choice choice;
    const unsigned client = BB_CPU_AVX2 | BB_CPU_AVX_VNNI, server = BB_CPU_AVX2 | BB_CPU_AVX512 | BB_CPU_AVX512_VNNI;
    assert_int_equal(bb_cpu_choose(client, NULL, &choice, NULL), BB_OK);
    assert_string_equal(choice.set->name, "avx_vnni");
    assert_int_equal(bb_cpu_choose(client, "avx2", &choice, NULL), BB_OK);
    assert_int_equal(choice.features, BB_CPU_AVX2);
    assert_int_equal(bb_cpu_choose(server, "avx_vnni", &choice, NULL), BB_ERR_UNSUPPORTED);
    assert_int_equal(bb_cpu_choose(client | server, NULL, &choice, NULL), BB_OK);
    assert_string_equal(choice.set->name, "avx512_vnni");
    assert_int_equal(choice.features, server);
    assert_int_equal(bb_cpu_choose(client | server | BB_CPU_AVX512_VBMI, NULL, &choice, NULL), BB_OK);
    assert_int_equal(choice.features, server | BB_CPU_AVX512_VBMI);
    assert_int_equal(bb_cpu_choose(client | server | BB_CPU_AVX512_VBMI, "avx512", &choice, NULL), BB_OK);
    assert_int_equal(choice.features, BB_CPU_AVX2 | BB_CPU_AVX512);
}
#endif

static void a_device_says_why_it_uses_its_set(void **state) {
    (void)state;
    char before[32] = "";
    if (getenv("BITBYTE_CPU")) (void)snprintf(before, sizeof before, "%s", getenv("BITBYTE_CPU"));
    assert_int_equal(unsetenv("BITBYTE_CPU"), 0);
    bb_cpu_choice own;
    bb_device *device;
    assert_int_equal(bb_cpu_detect(&own, NULL), BB_OK);
    assert_int_equal(bb_device_open("cpu", 1, &device, NULL), BB_OK);
    assert_non_null(strstr(bb_device_description(device), own.set->name));
    assert_null(strstr(bb_device_description(device), "BITBYTE_CPU"));
    bb_device_close(device);
    assert_int_equal(setenv("BITBYTE_CPU", "generic", 1), 0);
    assert_int_equal(bb_device_open("cpu", 1, &device, NULL), BB_OK);
    bool limited = strstr(bb_device_description(device), "generic, limited by BITBYTE_CPU") != NULL;
    assert_true(limited == (own.set != bb_cpu_sets));
    bb_device_close(device);
    assert_int_equal(setenv("BITBYTE_CPU", before, 1), 0);
}

static void devices_say_what_they_are(void **state) {
    (void)state;
    const char *const names[] = {"cpu", "ref"};
    for (size_t i = 0; i < 2; i++) {
        bb_device *device;
        uint64_t total, available;
        assert_int_equal(bb_device_open(names[i], 2, &device, NULL), BB_OK);
        assert_string_equal(bb_device_name(device), names[i]);
        assert_int_equal(bb_device_threads(device), i == 0 ? 2 : 1);
        assert_true(strlen(bb_device_description(device)) > 0);
        bb_device_memory(device, &total, &available);
        assert_true(available > 0 && available <= total);
        bb_device_close(device);
    }
    bb_device_close(NULL);
}

static void lay(const char *root, const char *path, const char *text);

static void zero_threads_takes_what_the_process_may_use(void **state) {
    (void)state;
    bb_device *device;
    assert_int_equal(bb_device_open("cpu", 0, &device, NULL), BB_OK);
    assert_int_equal(bb_device_threads(device), bb_host_threads("", 1));
    bb_device_close(device);
    assert_int_equal(setenv("OMP_NUM_THREADS", "3", 1), 0);
    assert_int_equal(bb_device_open("cpu", 0, &device, NULL), BB_OK);
    assert_int_equal(bb_device_threads(device), 3);
    bb_device_close(device);
    assert_int_equal(bb_device_open("cpu", 2, &device, NULL), BB_OK); /* what is asked for here comes first */
    assert_int_equal(bb_device_threads(device), 2);
    bb_device_close(device);
    assert_int_equal(unsetenv("OMP_NUM_THREADS"), 0);
}

/* OMP_NUM_THREADS first, then the CPU quota, then the affinity mask. */
static void order_of_threads(void **state) {
    (void)state;
    const char *root = scratch_path("order");
    static const struct {
        const char *text;
        int threads;
    } cases[] = {{"7", 7}, {"5,2", 5}, {"100000", BB_MAX_THREADS}, {"0", 1}, {"-2", 1}, {"many", 1}, {"", 1}, {"3x", 1}};
    lay(root, "/proc/self/cgroup", "0::/a\n");
    lay(root, "/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(bb_host_threads(root, 1), 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(setenv("OMP_NUM_THREADS", cases[i].text, 1), 0);
        assert_int_equal(bb_host_threads(root, 1), cases[i].threads);
        assert_int_equal(bb_host_threads(root, 4), cases[i].threads); /* it is of one process */
    }
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(bb_host_threads("", 1 << 20), 1);
}

/* A machine whose kernel has room for 5,000 processors, 3,000 of which this process may use. */
static int large_machine(pid_t pid, size_t bytes, cpu_set_t *set) {
    (void)pid;
    if (bytes < 5000 / 8) {
        errno = EINVAL;
        return -1;
    }
    for (size_t i = 0; i < 3000; i++) CPU_SET_S(i, bytes, set);
    return 0;
}

static int no_machine(pid_t pid, size_t bytes, cpu_set_t *set) {
    (void)pid, (void)bytes, (void)set;
    errno = EPERM;
    return -1;
}

static void many_processors(void **state) {
    (void)state;
    cpu_set_t set;
    assert_int_equal(bb_host_affinity(large_machine).cpus, 3000);
    assert_int_equal(bb_host_affinity(no_machine).cpus, 1);
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(bb_host_affinity(sched_getaffinity).cpus, CPU_COUNT(&set));
    assert_true(bb_host_affinity(large_machine).id != bb_host_affinity(sched_getaffinity).id);
}

static void memory_without_proc_is_unknown(void **state) {
    (void)state;
    uint64_t total = 1, available = 1;
    bb_host_memory(scratch_path("empty"), &total, &available);
    assert_true(total == 0 && available == 0);
}

static void check_scratch(bb_config config, uint64_t unused) {
    enum { T = 2048 };
    static uint8_t x[T];
    bb_device *device;
    bb_model *model;
    bb_memory_estimate memory;
    double loss;
    assert_int_equal(bb_device_open("cpu", 3, &device, NULL), BB_OK);
    const bb_memory_request request = {
        .struct_size = sizeof(bb_memory_request), .optim = BB_OPTIM_ADAMW, .batch_size = 1, .seq_len = T, .recompute = true};
    assert_int_equal(bb_memory_predict(device, &config, &request, &memory, NULL), BB_OK);
    assert_int_equal(bb_model_create(device, &config, 1, &model, NULL), BB_OK);
    assert_int_equal(bb_model_loss_backward(model, &(bb_train_batch){x, x, 1, T}, 1, &loss, NULL), BB_OK);
    const bb_cpu *cpu = bb_cpu_of(device);
    uint64_t used = cpu->shared_bytes;
    for (int i = 0; i < 3; i++) used += cpu->scratch_bytes[i];
    assert_in_range(used, memory.scratch - unused, memory.scratch);
    bb_model_free(model);
    bb_device_close(device);
}

/* One key head and a long sequence: attention's scratch is used whole; of the 12 MB for large matrices, these take little. In the dense
 * model the gradient of gate and up fills the memory that all threads share; a megabyte for each, and attention's, take less. */
static void scratch_is_what_was_predicted(void **state) {
    (void)state;
    bb_config config;
    bb_config_default(&config);
    config.n_layer = 1, config.d_model = 64, config.n_head = 4, config.n_kv_head = 1, config.d_ff = 96;
    check_scratch(config, 12 << 20);
    config.d_ff = 4096, config.act_quant = false, config.dense = true;
    check_scratch(config, 5 << 20);
}

/* Writes a file of the pretended system. */
static void lay(const char *root, const char *path, const char *text) {
    char full[600], dir[600];
    (void)snprintf(full, sizeof full, "%s%s", root, path);
    memcpy(dir, full, sizeof dir);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(bb_file_make_dirs(dir, NULL), BB_OK);
    assert_int_equal(bb_file_replace(full, text, strlen(text), NULL), BB_OK);
}

#define MEMINFO "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    800 kB\n"
#define KB ((uint64_t)1024)

static void assert_memory(const char *root, uint64_t total, uint64_t available) {
    uint64_t found_total, found_available;
    bb_host_memory(root, &found_total, &found_available);
    assert_int_equal(found_total, total);
    assert_int_equal(found_available, available);
}

static void memory_without_groups(void **state) {
    (void)state;
    const char *root = scratch_path("plain");
    assert_memory(root, 0, 0); /* nothing there yet */
    lay(root, "/proc/meminfo", MEMINFO);
    assert_memory(root, 1000 * KB, 800 * KB);
    lay(root, "/proc/self/cgroup", "0::/a\n");
    lay(root, "/sys/fs/cgroup/a/memory.max", "max\n");
    lay(root, "/sys/fs/cgroup/a/memory.current", "5000\n");
    assert_memory(root, 1000 * KB, 800 * KB);
}

/* The group itself may use 600 KB and uses 500, 50 of it droppable cache; the one above holds all its members to 400. */
static void memory_within_groups_v2(void **state) {
    (void)state;
    const char *root = scratch_path("v2");
    lay(root, "/proc/meminfo", MEMINFO);
    lay(root, "/proc/self/cgroup", "0::/a/b\n");
    lay(root, "/sys/fs/cgroup/a/b/memory.max", "614400\n");
    lay(root, "/sys/fs/cgroup/a/b/memory.current", "512000\n");
    lay(root, "/sys/fs/cgroup/a/b/memory.stat", "anon 1\ninactive_file 51200\n");
    assert_memory(root, 600 * KB, 150 * KB);
    lay(root, "/sys/fs/cgroup/a/memory.max", "409600\n");
    lay(root, "/sys/fs/cgroup/a/memory.current", "512000\n");
    assert_memory(root, 400 * KB, 0);
}

/* A container that sees its host's path and its own mount: only the mount's root is there. */
static void memory_within_groups_v1(void **state) {
    (void)state;
    const char *root = scratch_path("v1");
    lay(root, "/proc/meminfo", MEMINFO);
    lay(root, "/proc/self/cgroup", "9:name=systemd:/\n4:hugetlb,memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n");
    lay(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "307200\n");
    lay(root, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "102400\n");
    lay(root, "/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 10240\n");
    assert_memory(root, 300 * KB, 210 * KB);
    lay(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    assert_memory(root, 1000 * KB, 800 * KB);
}

static void cpu_quotas(void **state) {
    (void)state;
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    int all = CPU_COUNT(&set);
    const char *root = scratch_path("cpus");
    assert_int_equal(bb_host_cpus(root), all);
    lay(root, "/proc/self/cgroup", "0::/a\n");
    lay(root, "/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_int_equal(bb_host_cpus(root), all);
    lay(root, "/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    assert_int_equal(bb_host_cpus(root), 1);
    lay(root, "/sys/fs/cgroup/a/cpu.max", "150000 100000\n"); /* rounded up */
    assert_int_equal(bb_host_cpus(root), all < 2 ? all : 2);
    lay(root, "/proc/self/cgroup", "2:cpu,cpuacct:/\n");
    lay(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    lay(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(bb_host_cpus(root), all);
    lay(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    assert_int_equal(bb_host_cpus(root), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names_are_errors_that_list_the_known),
        cmocka_unit_test(further_backends_are_registered_by_name),
        cmocka_unit_test(every_device_measures_its_peaks),
        cmocka_unit_test(impossible_thread_counts_are_errors),
        cmocka_unit_test(a_level_that_is_none_is_an_error_that_lists_them),
#ifdef __x86_64__
        cmocka_unit_test(a_level_is_lowered_and_never_raised),
        cmocka_unit_test(a_set_has_its_own_features_and_no_others),
#endif
        cmocka_unit_test(a_device_says_why_it_uses_its_set),
        cmocka_unit_test(devices_say_what_they_are),
        cmocka_unit_test(zero_threads_takes_what_the_process_may_use),
        cmocka_unit_test(order_of_threads),
        cmocka_unit_test(many_processors),
        cmocka_unit_test(memory_without_proc_is_unknown),
        cmocka_unit_test(scratch_is_what_was_predicted),
        cmocka_unit_test(memory_without_groups),
        cmocka_unit_test(memory_within_groups_v2),
        cmocka_unit_test(memory_within_groups_v1),
        cmocka_unit_test(cpu_quotas),
    };
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
