/* Files that are no models: missing, empty, cut off, of another format, a folder. Each is a status and a
 * message, and a good model loads afterwards. */
#include <stdlib.h>
#include <string.h>

#include "test.h"

/* The status of loading the file, through both functions where its contents are at hand. */
static void check_contents(const char *path, const unsigned char *data, size_t size, sm_status expected) {
    sm_model *model = (sm_model *)(uintptr_t)8;
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    if (file == NULL) {
        return;
    }
    CHECK(fwrite(data, 1, size, file) == size);
    CHECK(fclose(file) == 0);

    sm_model_params params;
    CHECK_OK(sm_model_params_init(&params, sizeof params));
    for (int32_t map = 0; map <= 1; map++) {
        params.memory_map = map;
        CHECK_STATUS(sm_model_load(path, &params, &model), expected);
        CHECK(model == NULL);
    }
    CHECK_STATUS(sm_model_load_memory(data, size, NULL, &model), expected);
    CHECK(model == NULL);
    CHECK(remove(path) == 0);
}

static unsigned char *read_whole(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return NULL;
    }
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = malloc(*size);
    if (data != NULL && fread(data, 1, *size, file) != *size) {
        free(data);
        data = NULL;
    }
    fclose(file);
    return data;
}

static int32_t cancel_at_half(void *user_data, float fraction) {
    int *calls = user_data;
    (*calls)++;
    return fraction >= 0.5f;
}

void test_bad_files(const char *model_path, const char *folder) {
    sm_model *model = NULL;
    CHECK_STATUS(sm_model_load("/no/such/file.gguf", NULL, &model), SM_STATUS_IO);
    CHECK(strstr(sm_last_error(), "/no/such/file.gguf") != NULL);
    CHECK_STATUS(sm_model_load(folder, NULL, &model), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_model_load("", NULL, &model), SM_STATUS_INVALID_ARGUMENT);

    char path[4096];
    snprintf(path, sizeof path, "%s/bad.gguf", folder);
    static const char text[] = "This is a poem, and no model at all; it goes on for a while.\n";
    check_contents(path, NULL, 0, SM_STATUS_FORMAT);
    check_contents(path, (const unsigned char *)text, sizeof text - 1, SM_STATUS_FORMAT);

    size_t size = 0;
    unsigned char *data = read_whole(model_path, &size);
    CHECK(data != NULL && size > 1000000);
    if (data == NULL) {
        return;
    }
    const size_t lengths[] = {1, 3, 4, 8, 23, 24, 100, 5000, 1000000, size / 2, size - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        check_contents(path, data, lengths[i], SM_STATUS_FORMAT);
    }

    /* Cancelled, then whole, from the same memory. */
    int calls = 0;
    sm_model_params params;
    CHECK_OK(sm_model_params_init(&params, sizeof params));
    params.progress = cancel_at_half;
    params.user_data = &calls;
    CHECK_STATUS(sm_model_load_memory(data, size, &params, &model), SM_STATUS_CANCELLED);
    CHECK(model == NULL && calls > 0);
    CHECK_OK(sm_model_load_memory(data, size, NULL, &model));
    free(data);
    sm_model_info info;
    CHECK_OK(sm_model_describe(model, &info, sizeof info));
    CHECK(strcmp(info.architecture, "llama") == 0);
    CHECK_OK(sm_model_free(model));
}
