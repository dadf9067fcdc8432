"""Times llama.cpp in this process, as its own llama-bench does, and prints JSON.

The output has the shape of `smallmind bench --json`: an array of
{"test": "pp512" | "tg128" | "tg128@d2048", "threads": T, "kv": K, "tokens_per_second": X, "cores": C},
where C is the CPU time used a second: below T, something else took the CPU.
A prompt is decoded in batches of 512 with only its last logits, generation goes token by token; both begin
with D tokens in the cache, and each is timed after one untimed run. With -e an encoder's pass over E tokens, pooled as
the file says ("em512"). With --first, what ours.py prints.

usage: peer.py --model FILE [-p N] [-n N] [-e N] [-d D] [--parallel N] [--kv f32|f16|q8_0] [--threads T] [-r R] [--plain] [--flash]
       peer.py --model FILE --first [...]
       peer.py --info
"""

import argparse
import ctypes
import json
import resource
import time

import first
import llama_cpp
import numpy as np

CACHES = {"f32": 0, "f16": 1, "q8_0": 8}
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Model:
    def __init__(self, path, plain):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = not plain
        self.handle = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise SystemExit(f"llama.cpp can't load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.handle)

    def tokenize(self, text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])


class Context:
    def __init__(self, model, length, args):
        self.model, self.vocabulary = model, llama_cpp.llama_vocab_n_tokens(model.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = length * args.parallel, args.parallel
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = args.threads
        params.type_k = params.type_v = CACHES[args.kv]
        params.flash_attn_type = int(args.flash)
        params.embeddings = args.e > 0
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise SystemExit("llama.cpp can't make such a context")
        self.memory = llama_cpp.llama_get_memory(self.handle)
        self.parallel = args.parallel
        self.batch = llama_cpp.llama_batch_init(args.parallel, 0, 1)

    def clear(self):
        llama_cpp.llama_memory_clear(self.memory, True)

    def rewind(self, depth):
        for sequence in range(self.parallel):
            llama_cpp.llama_memory_seq_rm(self.memory, sequence, depth, -1)

    def decode(self, tokens):
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(ids, len(ids))
        if llama_cpp.llama_decode(self.handle, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self.handle)

    def scores(self):
        logits = llama_cpp.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(logits, (self.vocabulary,))

    def prompt(self, count):
        for start in range(0, count, 512):
            self.decode([100 + n % 1000 for n in range(start, min(start + 512, count))])

    def embed(self, count):
        """A pass over one text of `count` tokens; its vector."""
        self.decode([100 + n % 1000 for n in range(count)])
        llama_cpp.llama_get_embeddings_seq(self.handle, 0)

    def generate_all(self, count):
        """A token of every sequence in each of `count` passes."""
        batch = self.batch
        batch.n_tokens = self.parallel
        for n in range(count):
            for row in range(self.parallel):
                batch.token[row], batch.pos[row], batch.logits[row] = 100 + n + row, n, True
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, row
            if llama_cpp.llama_decode(self.handle, batch) != 0:
                raise SystemExit("llama_decode failed")
            llama_cpp.llama_get_logits_ith(self.handle, -1)

    def generate(self, count):
        for n in range(count):
            self.decode([100 + n])
            llama_cpp.llama_get_logits_ith(self.handle, -1)


def cpu_time():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(context, depth, work, count):
    """Tokens a second and cores kept busy by `work(count)` behind `depth` tokens."""
    context.rewind(depth)
    cpu, wall = cpu_time(), time.perf_counter()
    work(count)
    wall, cpu = time.perf_counter() - wall, cpu_time() - cpu
    return count / wall, cpu / wall


def speeds(args):
    context = Context(Model(args.model, args.plain), args.d + max(args.p, args.n, args.e), args)
    if args.d:
        context.prompt(args.d)
    suffix = f"@d{args.d}" if args.d else ""
    results = []
    if args.parallel > 1:
        timed(context, 0, context.generate_all, 8)
        for _ in range(args.r):
            speed, cores = timed(context, 0, context.generate_all, args.n)
            row = {"test": f"tg{args.n}x{args.parallel}", "threads": args.threads, "kv": args.kv, "cores": cores}
            results.append(row | {"tokens_per_second": speed * args.parallel})
        return results
    for name, work, count in ("pp", context.prompt, args.p), ("tg", context.generate, args.n), ("em", context.embed, args.e):
        if count == 0:
            continue
        timed(context, args.d, work, min(count, 8 if name == "tg" else 512))
        for _ in range(args.r):
            speed, cores = timed(context, args.d, work, count)
            row = {"test": f"{name}{count}{suffix}", "threads": args.threads, "kv": args.kv}
            results.append(row | {"tokens_per_second": speed, "cores": cores})
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--info", action="store_true")
    parser.add_argument("--first", action="store_true", help="load, first token and texts instead")
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("-e", type=int, default=0)
    parser.add_argument("-d", type=int, default=0, help="tokens in the cache beforehand")
    parser.add_argument("-r", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1, help="sequences that generate, each -n tokens, without -p and -d")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kv", choices=CACHES, default="f16")
    parser.add_argument("--plain", action="store_true", help="no repacked weights, no AMX")
    parser.add_argument("--flash", action="store_true", help="flash attention")
    args = parser.parse_args()

    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    if args.info:
        version = llama_cpp.llama_version().decode()
        info = llama_cpp.llama_print_system_info().decode()
        print(f"llama.cpp {version} (llama-cpp-python {llama_cpp.__version__}); {info.strip(' |')}")
    elif args.first:

        def start():
            return Context(Model(args.model, args.plain), first.CONTEXT, args)

        print(json.dumps(first.measure(start, lambda context, text: context.model.tokenize(text), args.r)))
    else:
        print(json.dumps(speeds(args)))


if __name__ == "__main__":
    main()
