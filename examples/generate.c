/* Text from a model in C; README.md says how to build it. */
#include <smallmind.h>
#include <stdio.h>
#include <string.h>

static int32_t print(void *user_data, uint32_t token, const char *text, size_t text_bytes) {
    (void)user_data, (void)token;
    fwrite(text, 1, text_bytes, stdout);
    return fflush(stdout); /* anything but 0 stops */
}

int main(int argc, char **argv) {
    sm_model *model = NULL;
    sm_context *context = NULL;
    sm_sampler *sampler = NULL;
    uint32_t tokens[512];
    size_t count = 0;
    sm_generate_params params;
    sm_generate_params_init(&params, sizeof params);
    params.on_text = print;
    int failed = argc != 3 || sm_model_load(argv[1], NULL, &model) ||
                 sm_context_create(model, NULL, &context) || sm_sampler_create(model, NULL, &sampler) ||
                 sm_tokenize(model, argv[2], strlen(argv[2]), 1, 0, tokens, 512, &count) ||
                 sm_generate(context, sampler, tokens, count, &params, NULL, 0);
    if (failed) fprintf(stderr, "%s\n", argc == 3 ? sm_last_error() : "usage: generate MODEL.gguf TEXT");
    sm_sampler_free(sampler);
    sm_context_free(context);
    sm_model_free(model);
    return failed;
}
