// A host in C++17: handles owned by smart pointers, failures as exceptions, and what threads may and may
// not do with one model and one context.
// usage: cpp-host MODEL.gguf
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "smallmind.h"

namespace {

class Failure : public std::runtime_error {
public:
    explicit Failure(sm_status status)
        : std::runtime_error(std::string(sm_status_name(status)) + ": " + sm_last_error()), status(status) {}
    const sm_status status;
};

void check(sm_status status) {
    if (status != SM_STATUS_OK) {
        throw Failure(status);
    }
}

void require(bool condition, const char *what) {
    if (!condition) {
        throw std::logic_error(what);
    }
}

template <auto Free> struct Freer {
    template <typename T> void operator()(T *object) const { Free(object); }
};
using Model = std::unique_ptr<sm_model, Freer<sm_model_free>>;
using Context = std::unique_ptr<sm_context, Freer<sm_context_free>>;
using Sampler = std::unique_ptr<sm_sampler, Freer<sm_sampler_free>>;

static_assert(std::is_standard_layout_v<sm_method_stats>, "the header's structures are plain data");

Model load(const char *path) {
    sm_model *model = nullptr;
    check(sm_model_load(path, nullptr, &model));
    return Model(model);
}

Context make_context(const Model &model, std::size_t n_threads) {
    sm_context_params params;
    check(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 256;
    params.n_threads = n_threads;
    sm_context *context = nullptr;
    check(sm_context_create(model.get(), &params, &context));
    return Context(context);
}

Sampler make_sampler(const Model &model, std::uint64_t seed) {
    sm_sampler_params params;
    check(sm_sampler_params_init(&params, sizeof params));
    params.seed = seed;
    sm_sampler *sampler = nullptr;
    check(sm_sampler_create(model.get(), &params, &sampler));
    return Sampler(sampler);
}

std::vector<std::uint32_t> tokenize(const Model &model, const std::string &text) {
    std::size_t count = 0;
    check(sm_tokenize(model.get(), text.data(), text.size(), 1, 0, nullptr, 0, &count));
    std::vector<std::uint32_t> tokens(count);
    check(sm_tokenize(model.get(), text.data(), text.size(), 1, 0, tokens.data(), tokens.size(), &count));
    return tokens;
}

std::string generate(const Context &context, const Sampler &sampler, const std::vector<std::uint32_t> &prompt) {
    std::string text;
    sm_generate_params params;
    check(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 24;
    params.user_data = &text;
    params.on_text = [](void *user_data, std::uint32_t, const char *piece, std::size_t bytes) -> std::int32_t {
        static_cast<std::string *>(user_data)->append(piece, bytes);
        return 0;
    };
    check(sm_generate(context.get(), sampler.get(), prompt.data(), prompt.size(), &params, nullptr, 0));
    return text;
}

// Two contexts on one model, at once, write what each writes alone.
void parallel_contexts(const Model &model) {
    const auto prompt = tokenize(model, "Once upon a time");
    const auto alone = generate(make_context(model, 1), make_sampler(model, 7), prompt);
    require(!alone.empty(), "a generation without text");
    std::string texts[2];
    std::string errors[2];
    std::thread threads[2];
    for (int i = 0; i < 2; i++) {
        threads[i] = std::thread([&, i] {
            try {
                texts[i] = generate(make_context(model, i + 1), make_sampler(model, 7), prompt);
            } catch (const std::exception &error) {
                errors[i] = error.what();
            }
        });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    for (int i = 0; i < 2; i++) {
        require(errors[i].empty(), errors[i].c_str());
        require(texts[i] == alone, "two threads write something else than one");
    }
    std::printf("Once upon a time%s\n", alone.c_str());
}

// A second thread that enters a context in use is told so, and changes nothing.
void busy_context(const Model &model) {
    const auto context = make_context(model, 1);
    const auto sampler = make_sampler(model, 1);
    const auto prompt = tokenize(model, "The weather is");
    struct Meeting {
        const Context *context;
        std::vector<sm_status> statuses;
        std::string error;
    } meeting{&context, {}, {}};
    sm_generate_params params;
    check(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 4;
    params.user_data = &meeting;
    params.on_text = [](void *user_data, std::uint32_t, const char *, std::size_t) -> std::int32_t {
        auto &meeting = *static_cast<Meeting *>(user_data);
        std::thread([&meeting] {
            sm_context *context = meeting.context->get();
            const std::uint32_t token = 1;
            meeting.statuses = {sm_context_clear(context), sm_context_rewind(context, 0),
                                sm_decode(context, &token, 1, SM_LOGITS_LAST), sm_context_free(context)};
            meeting.error = sm_last_error();
        }).join();
        return 1;
    };
    sm_generate_summary summary;
    check(sm_generate(context.get(), sampler.get(), prompt.data(), prompt.size(), &params, &summary,
                      sizeof summary));
    require(summary.stop_reason == SM_STOP_CALLBACK, "the callback's stop");
    require(meeting.statuses.size() == 4, "the callback ran");
    for (const sm_status status : meeting.statuses) {
        require(status == SM_STATUS_BUSY, "a second thread got in");
    }
    require(!meeting.error.empty(), "a message on the second thread");
    std::size_t n_past = 0;
    check(sm_context_n_past(context.get(), &n_past));
    require(n_past == prompt.size(), "the sequence is as it was");
}

// A failure is taken to another thread with its status; a later failure there or here doesn't change it.
void errors_travel() {
    struct Taken {
        sm_status status = SM_STATUS_OK;
        std::string text;
    } taken;
    std::thread([&taken] {
        sm_model *model = nullptr;
        require(sm_model_load("/no/such/file", nullptr, &model) == SM_STATUS_IO, "a missing file");
        taken.text.resize(sm_last_error_copy(nullptr, 0, nullptr));
        sm_last_error_copy(&taken.text[0], taken.text.size(), &taken.status);
        taken.text.pop_back();
    }).join();
    require(taken.status == SM_STATUS_IO && taken.text.find("/no/such/file") != std::string::npos, "a copy");
    require(sm_last_error_copy(nullptr, 0, &taken.status) >= 1, "the size of what this thread has");
}

// Tokens that are new are told from text that was held back, and the context holds all of them but the last.
void tokens_are_counted(const Model &model) {
    const auto context = make_context(model, 2);
    const auto sampler = make_sampler(model, 3);
    const auto prompt = tokenize(model, "Once upon a time");
    std::vector<std::uint32_t> tokens = prompt;
    sm_generate_params params;
    check(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 12;
    params.user_data = &tokens;
    params.on_token = [](void *user_data, const sm_token_event *event) -> std::int32_t {
        if (event->is_new) {
            static_cast<std::vector<std::uint32_t> *>(user_data)->push_back(event->token);
        }
        return 0;
    };
    sm_generate_summary summary;
    check(sm_generate(context.get(), sampler.get(), prompt.data(), prompt.size(), &params, &summary, sizeof summary));
    if (summary.stop_reason == SM_STOP_END_OF_TEXT) {
        tokens.push_back(summary.last_token);
    }
    require(tokens.size() == prompt.size() + summary.n_generated, "a callback for each new token");
    require(tokens.back() == summary.last_token, "the last token");
    tokens.pop_back();
    std::size_t count = 0;
    check(sm_context_tokens(context.get(), nullptr, 0, &count));
    std::vector<std::uint32_t> held(count);
    check(sm_context_tokens(context.get(), held.data(), held.size(), &count));
    require(held == tokens, "the context holds all tokens but the last");
}

void failures_are_exceptions(const Model &model) {
    try {
        load("/no/such/file");
        require(false, "a file that isn't there was loaded");
    } catch (const Failure &failure) {
        require(failure.status == SM_STATUS_IO, failure.what());
    }
    // The message of one thread is not that of another.
    std::thread([] { require(std::string(sm_last_error()).empty(), "a new thread has no message"); }).join();
    require(tokenize(model, "").empty(), "tokens of nothing");
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    try {
        const auto model = load(argv[1]);
        failures_are_exceptions(model);
        errors_travel();
        tokens_are_counted(model);
        parallel_contexts(model);
        busy_context(model);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
        return 1;
    }
    return 0;
}
