"""Times llama.cpp in this process, as its own llama-bench does, and prints JSON.

The output has the shape of `smallmind bench --json`: an array of
{"test": "pp512" | "tg128", "threads": T, "tokens_per_second": X, "cores": C},
where C is the CPU time used a second: below T, something else took the CPU.
A prompt is decoded in one batch with only its last logits, generation goes token
by token from an empty cache; each is timed after one untimed run.

usage: peer.py --model FILE [-p N] [-n N] [--threads T] [-r R] [--plain] [--flash]
       peer.py --info
"""

import argparse
import ctypes
import json
import resource
import time

import llama_cpp

_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


def load(path, plain):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = not plain
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp can't load {path}")
    return model


def context(model, length, threads, flash):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = length
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = int(flash)
    return llama_cpp.llama_init_from_model(model, params)


def decode(ctx, tokens):
    batch = llama_cpp.llama_batch_get_one(tokens, len(tokens))
    if llama_cpp.llama_decode(ctx, batch) != 0:
        raise SystemExit("llama_decode failed")


def prompt(ctx, count):
    for start in range(0, count, 512):
        size = min(512, count - start)
        decode(ctx, (llama_cpp.llama_token * size)(*(100 + n % 1000 for n in range(start, start + size))))


def generate(ctx, count):
    token = (llama_cpp.llama_token * 1)()
    for n in range(count):
        token[0] = 100 + n
        decode(ctx, token)
        llama_cpp.llama_get_logits_ith(ctx, -1)


def cpu_time():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(ctx, work, count):
    """Tokens a second and cores kept busy by `work(ctx, count)` on an empty cache."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)
    cpu, wall = cpu_time(), time.perf_counter()
    work(ctx, count)
    llama_cpp.llama_synchronize(ctx)
    wall, cpu = time.perf_counter() - wall, cpu_time() - cpu
    return count / wall, cpu / wall


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--info", action="store_true")
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("-r", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="no repacked weights, no AMX")
    parser.add_argument("--flash", action="store_true", help="flash attention")
    args = parser.parse_args()

    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    if args.info:
        version = llama_cpp.llama_version().decode()
        info = llama_cpp.llama_print_system_info().decode()
        print(f"llama.cpp {version} (llama-cpp-python {llama_cpp.__version__}); {info.strip(' |')}")
        return

    model = load(args.model, args.plain)
    ctx = context(model, max(args.p, args.n), args.threads, args.flash)
    results = []
    for name, work, count in ("pp", prompt, args.p), ("tg", generate, args.n):
        if count == 0:
            continue
        timed(ctx, work, min(count, 512 if name == "pp" else 8))
        for _ in range(args.r):
            speed, cores = timed(ctx, work, count)
            results.append(
                {
                    "test": f"{name}{count}",
                    "threads": args.threads,
                    "tokens_per_second": speed,
                    "cores": cores,
                }
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
