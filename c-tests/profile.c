/* The profile from a host's side: zones of its own, the tree, each method, each context, files and pictures. */
#define _DEFAULT_SOURCE
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "test.h"

#define INVALID SM_STATUS_INVALID_ARGUMENT

/* A tree or a list, as it was read. */
typedef struct {
    sm_method_stats *rows;
    size_t count;
} table;

static table read_tree(void) {
    table t = {NULL, 0};
    CHECK_OK(sm_profile_snapshot(NULL, sizeof *t.rows, 0, &t.count));
    t.rows = calloc(t.count + 1, sizeof *t.rows);
    CHECK_OK(sm_profile_snapshot(t.rows, sizeof *t.rows, t.count, &t.count));
    return t;
}

/* The row of this name below the row of that name (NULL: anywhere). */
static const sm_method_stats *find(const table *t, const char *name, const char *parent) {
    for (size_t i = 0; i < t->count; i++) {
        const sm_method_stats *s = &t->rows[i];
        if (strcmp(s->name, name) != 0) {
            continue;
        }
        if (parent == NULL || (s->parent >= 0 && strcmp(t->rows[s->parent].name, parent) == 0)) {
            return s;
        }
    }
    return NULL;
}

static uint64_t now_ns(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void spin_ms(unsigned ms) {
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    while (now_ns() < end) {
    }
}

static sm_profile_info describe(void) {
    sm_profile_info info;
    CHECK_OK(sm_profile_describe(&info, sizeof info));
    return info;
}

/* Zones of the host's own, with work of known time and size in them. */
static void test_own_zones(void) {
    enum { N = 96, CALLS = 5 };
    static float a[N * N], b[N * N], c[N * N];
    CHECK_OK(sm_profile_reset());
    uint64_t outside = now_ns();
    CHECK_OK(sm_profile_zone_begin("host.request"));
    CHECK_OK(sm_profile_zone_begin("host.spin"));
    spin_ms(20);
    CHECK_OK(sm_profile_zone_end());
    for (int i = 0; i < CALLS; i++) {
        CHECK_OK(sm_profile_zone_begin("host.product"));
        CHECK_OK(sm_matmul_f32(N, N, N, a, N, b, N, 0, c, N));
        CHECK_OK(sm_profile_zone_work(7, 9));
        CHECK_OK(sm_profile_zone_end());
    }
    CHECK_OK(sm_profile_zone_end());
    outside = now_ns() - outside;

    table t = read_tree();
    const sm_method_stats *request = find(&t, "host.request", NULL);
    const sm_method_stats *spin = find(&t, "host.spin", "host.request");
    const sm_method_stats *product = find(&t, "host.product", "host.request");
    const sm_method_stats *matmul = find(&t, "matmul", "host.product");
    CHECK(request != NULL && spin != NULL && product != NULL && matmul != NULL);
    if (request != NULL && spin != NULL && product != NULL && matmul != NULL) {
        CHECK(request->parent == -1 && request->calls == 1 && product->calls == CALLS);
        /* The system's clock may be slewed: two in a hundred. */
        CHECK(spin->total_ns >= 19600000u && spin->total_ns <= outside + outside / 50);
        CHECK(request->total_ns <= outside + outside / 50 && request->total_ns >= spin->total_ns);
        CHECK(matmul->flops == (uint64_t)CALLS * 2 * N * N * N);
        CHECK(product->flops == matmul->flops + 7 * CALLS);
        CHECK(product->bytes == matmul->bytes + 9 * CALLS);
        uint64_t self = 0;
        for (size_t i = 0; i < t.count; i++) {
            self += t.rows[i].self_ns;
        }
        CHECK(self <= request->total_ns + t.count && self + self / 50 >= request->total_ns);
    }
    free(t.rows);

    table list = {NULL, 0};
    CHECK_OK(sm_profile_methods(NULL, sizeof *list.rows, 0, &list.count));
    list.rows = calloc(list.count + 1, sizeof *list.rows);
    size_t needed = 0;
    CHECK_STATUS(sm_profile_methods(list.rows, sizeof *list.rows, list.count - 1, &needed),
                 SM_STATUS_BUFFER_TOO_SMALL);
    CHECK(needed == list.count && list.rows[0].name == NULL);
    CHECK_OK(sm_profile_methods(list.rows, sizeof *list.rows, list.count, &list.count));
    CHECK(find(&list, "matmul", NULL) != NULL && find(&list, "matmul", NULL)->calls == CALLS);
    CHECK(find(&list, "host.spin", NULL)->name == list.rows[1].name ||
          find(&list, "host.spin", NULL)->name == list.rows[0].name);
    free(list.rows);

    /* The same name has the same pointer, in any call. */
    t = read_tree();
    table again = read_tree();
    CHECK(t.count == again.count && t.rows[0].name == again.rows[0].name);
    CHECK(t.rows[0].roof_share == 0.0);
    free(t.rows);
    free(again.rows);
}

static void test_roof(void) {
    CHECK_STATUS(sm_profile_calibrate(0), INVALID);
    CHECK_STATUS(sm_profile_calibrate(1000000), INVALID);
    CHECK_OK(sm_profile_calibrate(1));
    table t = read_tree();
    const sm_method_stats *matmul = find(&t, "matmul", "host.product");
    CHECK(matmul != NULL && matmul->roof_share > 0.0 && matmul->roof_share < 1.5);
    CHECK(matmul != NULL && matmul->intensity == (double)matmul->flops / (double)matmul->bytes);
    free(t.rows);
}

/* What a host may do wrong with zones: counted, and nothing lost of the rest. */
static void test_unbalanced(void) {
    char name[160];
    CHECK_OK(sm_profile_reset());
    CHECK_STATUS(sm_profile_zone_end(), INVALID);
    CHECK(describe().unbalanced == 1);
    CHECK_STATUS(sm_profile_zone_begin(NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_profile_zone_end());
    CHECK_STATUS(sm_profile_zone_begin(""), INVALID);
    CHECK_OK(sm_profile_zone_end());
    CHECK_STATUS(sm_profile_zone_begin("\xff\xfe"), INVALID);
    CHECK_OK(sm_profile_zone_end());
    CHECK_OK(sm_profile_reset());
    for (int i = 0; i < 70; i++) {
        CHECK_OK(sm_profile_zone_begin("host.deep"));
    }
    for (int i = 0; i < 70; i++) {
        CHECK_OK(sm_profile_zone_end());
    }
    CHECK(describe().dropped == 6 && describe().unbalanced == 0);
    CHECK_OK(sm_profile_reset());
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "host.zone.%d", i);
        CHECK_OK(sm_profile_zone_begin(name));
        CHECK_OK(sm_profile_zone_end());
    }
    sm_profile_info info = describe();
    table t = read_tree();
    CHECK(info.dropped > 0 && info.dropped + t.count == 200);
    free(t.rows);
    /* Off, ends still need their beginnings. */
    CHECK_OK(sm_profile_enable(0));
    CHECK_OK(sm_profile_zone_begin("host.off"));
    CHECK_OK(sm_profile_enable(1));
    CHECK_OK(sm_profile_zone_end());
    CHECK_STATUS(sm_profile_zone_end(), INVALID);
}

/* Each context has a tree of its own. */
static void test_contexts(const char *model_path) {
    sm_model *model = NULL;
    sm_context *contexts[2] = {NULL, NULL};
    sm_context_params params;
    uint32_t tokens[4] = {1, 2, 3, 4};
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 64;
    CHECK_OK(sm_model_load(model_path, NULL, &model));
    CHECK_OK(sm_profile_reset());
    for (int i = 0; i < 2; i++) {
        CHECK_OK(sm_context_create(model, &params, &contexts[i]));
        for (int pass = 0; pass <= i; pass++) {
            CHECK_OK(sm_decode(contexts[i], tokens, 4, SM_LOGITS_LAST));
        }
    }
    for (int i = 0; i < 2; i++) {
        table own = {NULL, 0};
        CHECK_OK(sm_profile_context_snapshot(contexts[i], NULL, sizeof *own.rows, 0, &own.count));
        own.rows = calloc(own.count + 1, sizeof *own.rows);
        CHECK_OK(sm_profile_context_snapshot(contexts[i], own.rows, sizeof *own.rows, own.count, &own.count));
        const sm_method_stats *prefill = find(&own, "prefill", NULL);
        CHECK(prefill != NULL && prefill->calls == (uint64_t)i + 1 && prefill->parent == -1);
        CHECK(find(&own, "context.create", NULL) == NULL);
        CHECK(prefill != NULL && prefill->alloc_bytes == 0);
        free(own.rows);
    }
    table all = read_tree();
    CHECK(find(&all, "prefill", NULL) != NULL && find(&all, "prefill", NULL)->calls == 3);
    free(all.rows);
    size_t count = 0;
    CHECK_STATUS(sm_profile_context_snapshot(NULL, NULL, 8, 0, &count), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_profile_trace_start(10000));
    CHECK_STATUS(sm_profile_trace_start(10000), INVALID);
    CHECK_OK(sm_decode(contexts[0], tokens, 1, SM_LOGITS_LAST));
    CHECK_OK(sm_profile_trace_stop());
    for (int i = 0; i < 2; i++) {
        CHECK_OK(sm_context_free(contexts[i]));
    }
    CHECK_OK(sm_model_free(model));
}

/* What a sink got. */
typedef struct {
    char begin[64];
    size_t bytes;
    int32_t answer;
} received;

static int32_t on_bytes(void *user_data, const void *data, size_t bytes) {
    received *r = user_data;
    if (r->bytes == 0) {
        memcpy(r->begin, data, bytes < sizeof r->begin - 1 ? bytes : sizeof r->begin - 1);
    }
    r->bytes += bytes;
    return r->answer;
}

static long file_size(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -1;
    }
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static void test_exports(const char *folder) {
    static const char *const names[] = {"report.md", "report.json", "report.html",
                                        "flame.svg", "trace.json",  "profile.pb.gz"};
    static const char *const begins[] = {"#", "{", "<!", "<?xml", "{", "\x1f\x8b"};
    char path[512], saved[600];
    for (int32_t format = SM_PROFILE_MARKDOWN; format <= SM_PROFILE_PPROF; format++) {
        received r = {{0}, 0, 0};
        CHECK_OK(sm_profile_export_to(format, on_bytes, &r));
        CHECK(r.bytes > 100 && strncmp(r.begin, begins[format], strlen(begins[format])) == 0);
        snprintf(path, sizeof path, "%s/profile-%d", folder, (int)format);
        CHECK_OK(sm_profile_export(format, path));
        CHECK(file_size(path) > 100);
        remove(path);
    }
    snprintf(path, sizeof path, "%s/profile", folder);
    CHECK_OK(sm_profile_save(path));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(saved, sizeof saved, "%s/%s", path, names[i]);
        CHECK(file_size(saved) > 100);
    }
    received stops = {{0}, 0, 1};
    CHECK_STATUS(sm_profile_export_to(SM_PROFILE_JSON, on_bytes, &stops), SM_STATUS_CANCELLED);
    CHECK_STATUS(sm_profile_export_to(SM_PROFILE_JSON, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_profile_export_to(6, on_bytes, &stops), INVALID);
    CHECK_STATUS(sm_profile_export_to(-1, on_bytes, &stops), INVALID);
    CHECK_STATUS(sm_profile_export(SM_PROFILE_JSON, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_profile_export(SM_PROFILE_JSON, ""), INVALID);
    snprintf(saved, sizeof saved, "%s/no such folder/file", folder);
    CHECK_STATUS(sm_profile_export(SM_PROFILE_JSON, saved), SM_STATUS_IO);
    CHECK_STATUS(sm_profile_save(NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_profile_trace_start(0), INVALID);
    CHECK_STATUS(sm_profile_trace_start((size_t)1 << 40), INVALID);
}

/* The row of a zone (NULL: the whole recording) and a thread (-1: all together). */
static const sm_zone_counters *find_counters(const sm_zone_counters *rows, size_t count, const char *name,
                                             int64_t thread) {
    for (size_t i = 0; i < count; i++) {
        bool same = name == NULL ? rows[i].name == NULL : rows[i].name != NULL && strcmp(rows[i].name, name) == 0;
        if (same && rows[i].thread == thread) {
            return &rows[i];
        }
    }
    return NULL;
}

/* Pages that are touched for the first time are counted in the zone that does it, and in the recording. */
static void test_counters(void) {
    enum { PAGES = 400, PAGE = 4096 };
    sm_zone_counters rows[64];
    sm_thread_stats threads[64];
    size_t count = 0;
    CHECK_STATUS(sm_profile_count(3), INVALID);
    CHECK_STATUS(sm_profile_count(-1), INVALID);
    CHECK_OK(sm_profile_count(SM_COUNT_ZONES));
    CHECK_OK(sm_profile_reset());
    CHECK_OK(sm_profile_zone_begin("host.pages"));
    /* Not malloc, which may give back memory that was touched before; nor huge pages, of which one is enough. */
    char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    if (pages != MAP_FAILED) {
        madvise(pages, PAGES * PAGE, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < PAGES; i++) {
            ((volatile char *)pages)[i * PAGE] = 1;
        }
        munmap(pages, PAGES * PAGE);
    }
    CHECK_OK(sm_profile_zone_end());
    CHECK_OK(sm_profile_counters(rows, sizeof rows[0], 64, &count));
    const sm_zone_counters *zone = find_counters(rows, count, "host.pages", -1);
    const sm_zone_counters *all = find_counters(rows, count, NULL, -1);
    CHECK(zone != NULL && all != NULL);
    if (zone != NULL && all != NULL) {
        CHECK((zone->known & SM_COUNTER_MINOR_FAULTS) != 0);
        CHECK(zone->minor_faults >= PAGES - 1 && zone->minor_faults < PAGES + 50);
        CHECK(all->minor_faults >= zone->minor_faults && all->node == -1);
        CHECK(zone->node == 0);
        const sm_zone_counters *own = find_counters(rows, count, "host.pages", zone[1].thread);
        CHECK(own == zone + 1 && own->minor_faults == zone->minor_faults);
        CHECK((zone->known & SM_COUNTER_CYCLES) != 0 || zone->cycles == 0);
    }
    size_t length = 0;
    char text[2048];
    CHECK_OK(sm_profile_counters_missing(text, sizeof text, &length));
    bool complete = zone != NULL && zone->known == 2 * SM_COUNTER_BRANCH_MISSES - 1;
    CHECK(complete ? length == 0 : strstr(text, "not counted: ") == text && text[length - 1] == '\n');
    /* A caller that was compiled before the last field was added gets those that it knows. */
    sm_zone_counters old[64];
    memset(old, 0x5a, sizeof old);
    size_t stride = offsetof(sm_zone_counters, branches);
    CHECK_OK(sm_profile_counters(old, stride, 64, &count));
    CHECK(((sm_zone_counters *)((char *)old + count * stride))->thread == 0x5a5a5a5a5a5a5a5a);
    CHECK_STATUS(sm_profile_counters(rows, sizeof rows[0], 1, &count), SM_STATUS_BUFFER_TOO_SMALL);
    CHECK_STATUS(sm_profile_counters(rows, sizeof rows[0], 64, NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_profile_threads(threads, sizeof threads[0], 64, &count));
    uint64_t working = 0;
    for (size_t i = 0; i < count && i < 64; i++) {
        working += threads[i].working_ns;
    }
    CHECK(count >= 1 && working > 0);
    CHECK_OK(sm_profile_count(SM_COUNT_NOTHING));
    CHECK_OK(sm_profile_reset());
    CHECK_OK(sm_profile_zone_begin("host.pages"));
    CHECK_OK(sm_profile_zone_end());
    CHECK_OK(sm_profile_counters(rows, sizeof rows[0], 64, &count));
    CHECK(count == 0);
    CHECK_OK(sm_profile_count(SM_COUNT_ZONES));
}

void test_profile(const char *model_path, const char *folder) {
    int32_t on = -1;
    CHECK_OK(sm_profile_enable(1));
    CHECK_OK(sm_profile_enabled(&on));
    CHECK(on == 1);
    CHECK_STATUS(sm_profile_enabled(NULL), SM_STATUS_NULL_POINTER);
    test_own_zones();
    test_roof();
    test_contexts(model_path);
    test_exports(folder);
    test_counters();
    /* Last, since it uses up the host's zones. */
    test_unbalanced();
    CHECK_OK(sm_profile_enable(0));
    CHECK_OK(sm_profile_reset());
}
