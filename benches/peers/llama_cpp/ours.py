"""Times smallmind's load and first token through its C ABI, and continues texts greedily; prints JSON.

usage: ours.py LIBRARY MODEL [--threads T] [-r R] [--activations 16|auto|8] [--kv f32|f16|q8_0]

The output: load_seconds; load_to_first, from the beginning of the load to the logits after a prompt of 16
tokens; first16, the median of R more such prompts; texts: by name of the prompt (see first.py) its ids and
those that follow, and how far the likeliest token's logit is above the next one's.
"""

import argparse
import json

import first
import smallmind


class Context(smallmind.Context):
    def scores(self):
        return self.logits()[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-r", type=int, default=5)
    parser.add_argument("--activations", choices=["16", "auto", "8"], default="16")
    parser.add_argument("--kv", help="left as it is where the library has no choice")
    args = parser.parse_args()
    library = smallmind.Library(args.library)
    cache = smallmind.cache_type(args.kv) if args.kv else {}

    def start():
        model = smallmind.Model(library, args.model, **smallmind.activations(args.activations))
        return Context(model, n_ctx=first.CONTEXT, n_threads=args.threads, **cache)

    try:
        print(json.dumps(first.measure(start, lambda context, text: context.model.tokenize(text), args.r)))
    except smallmind.Failure as failure:
        raise SystemExit(f"smallmind: {failure}") from None


if __name__ == "__main__":
    main()
