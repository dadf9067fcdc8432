// Adapter for PyTorch's C++ library: functions of elements and rows into given tensors, and attention.
#include "worker.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/InferenceMode.h>
#include <malloc.h>
#include <torch/headeronly/version.h>

#include <cstdio>
#include <map>
#include <string>

namespace
{

// Tensors over the task's buffers.
at::Tensor input, output, weight, bias, keys, values;

at::Tensor over(float *data, at::IntArrayRef sizes) { return at::from_blob(data, sizes, at::kFloat); }

void exp_(const task *) { at::exp_out(output, input); }
void tanh_(const task *) { at::tanh_out(output, input); }
void gelu_tanh(const task *) { at::gelu_out(output, input, "tanh"); }
void gelu_erf(const task *) { at::gelu_out(output, input, "none"); }
void silu(const task *) { at::silu_out(output, input); }
void softmax(const task *) { at::softmax_out(output, input, -1); }

void layer_norm(const task *t)
{
    static at::Tensor mean = at::empty({0}), rstd = at::empty({0});
    at::native_layer_norm_out(output, mean, rstd, input, {t->n}, weight, bias, LAYER_NORM_EPS);
}

// These make their outputs themselves, of memory that the allocator keeps.
void rms_norm(const task *t) { output = at::rms_norm(input, {t->n}, weight, LAYER_NORM_EPS); }
void attention(const task *t)
{
    output = at::scaled_dot_product_attention(input, keys, values, {}, 0.0, t->transposed != 0);
}

const std::map<std::string, void (*)(const task *)> functions = {
    {"exp", exp_},
    {"tanh", tanh_},
    {"gelu_tanh", gelu_tanh},
    {"gelu_erf", gelu_erf},
    {"silu", silu},
    {"softmax", softmax},
    {"layer_norm", layer_norm},
    {"rms_norm", rms_norm},
    {"attention", attention},
};

c10::InferenceMode inference;

} // namespace

const char *peer_open(int threads, int, char **)
{
    // Keeps freed blocks: fresh pages for every result would be what is measured.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    at::set_num_threads(threads);
    return nullptr;
}

void peer_describe(char *text, size_t capacity)
{
    std::snprintf(text, capacity, "%s, %s kernels", TORCH_VERSION, at::get_cpu_capability().c_str());
}

int peer_prepare(const task *t, way *ways, const char **why_not)
{
    auto found = functions.find(t->op);
    if (found == functions.end()) {
        *why_not = "not compared";
        return 0;
    }
    if (found->first == "attention") {
        const at::DimVector sizes = {1, t->k, t->m, t->n};
        input = over(t->a, sizes), keys = over(t->b, sizes), values = over(t->values, sizes);
    } else {
        input = over(t->a, {t->m, t->n});
        weight = over(t->weight, {t->n}), bias = over(t->bias, {t->n});
    }
    output = over(t->c, input.sizes());
    found->second(t);
    if (output.data_ptr<float>() != t->c)
        over(t->c, input.sizes()).copy_(output);
    ways[0] = {"ATen", found->second};
    return 1;
}
