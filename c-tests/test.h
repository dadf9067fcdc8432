/* What the test programs in C share: checks that count, and say where and why one failed. */
#ifndef SMALLMIND_TEST_H
#define SMALLMIND_TEST_H

#include <stdio.h>

#include "smallmind.h"

/* Checks that failed so far. */
extern int failures;

/* Something that must hold. */
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            failures++;                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
        }                                                                      \
    } while (0)

/* A call and the status that it must return; a failure must leave a message. */
#define CHECK_STATUS(call, expected)                                                       \
    do {                                                                                   \
        sm_status status_ = (call);                                                        \
        if (status_ != (expected) || (status_ != SM_STATUS_OK && *sm_last_error() == 0)) { \
            failures++;                                                                    \
            fprintf(stderr, "%s:%d: %s is %s (%s), not %s\n", __FILE__, __LINE__, #call,   \
                    sm_status_name(status_), sm_last_error(), sm_status_name(expected));   \
        }                                                                                  \
    } while (0)

#define CHECK_OK(call) CHECK_STATUS(call, SM_STATUS_OK)

/* The parts of the program; each adds to `failures`. */
void test_kernels(void);
void test_products(void);
void test_team(const char *model_path);
void test_attention(void);
void test_bf16(void);
void test_rows(void);
void test_bad_kernels(void);
void test_bad_rows(void);
void test_random(void);
void check_shift(const sm_model *model, sm_context *context, const uint32_t *prompt, size_t n_prompt);
void check_long(const sm_model *model, const uint32_t *prompt, size_t n_prompt);
void test_bad_arguments(const char *model_path);
void test_bad_files(const char *model_path, const char *folder);
void test_builtin(void);
void test_generation(const char *model_path);
void test_embedder(const char *model_path);
void test_trainer(const char *folder);
void check_logprobs(const sm_model *model, sm_server *server);
void test_server(const char *model_path);
void test_contracts(const char *model_path);
void test_profile(const char *model_path, const char *folder);

#endif
