/* Everything that a host in C does with the library, and everything it may do wrong.
 * usage: host MODEL.gguf FOLDER-TO-WRITE-TO */
#include <string.h>

#include "test.h"

int failures = 0;

static void test_status(void) {
    CHECK(sm_abi_version() == SM_ABI_VERSION);
    CHECK(strlen(sm_version()) >= 5);
    CHECK(strcmp(sm_last_error(), "") == 0);
    CHECK(strcmp(sm_status_name(SM_STATUS_BUSY), "SM_STATUS_BUSY") == 0);
    for (sm_status status = -2; status < 100; status++) {
        CHECK(*sm_status_name(status) != 0);
    }
}

static void on_log(void *user_data, int32_t level, const char *message) {
    int *lines = user_data;
    (*lines)++;
    printf("log %d: %s\n", (int)level, message);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.gguf FOLDER-TO-WRITE-TO\n", argv[0]);
        return 2;
    }
    int lines = 0;
    test_status();
    test_kernels();
    test_products();
    test_team(argv[1]);
    test_attention();
    test_bf16();
    test_rows();
    test_bad_kernels();
    test_bad_rows();
    test_random();
    test_contracts(argv[1]);
    test_bad_arguments(argv[1]);
    CHECK_OK(sm_set_log_callback(on_log, &lines));
    test_bad_files(argv[1], argv[2]);
    CHECK(lines > 0);
    /* It has a log of its own at times. */
    test_builtin();
    test_generation(argv[1]);
    test_embedder(argv[1]);
    test_trainer(argv[2]);
    test_server(argv[1]);
    test_profile(argv[1], argv[2]);
    CHECK_OK(sm_set_log_callback(NULL, NULL));
    printf("%s: %d failures\n", argv[0], failures);
    return failures == 0 ? 0 : 1;
}
