"""The texts of the comparison, as tokens of the model: a chapter book's sentences and paragraphs.

usage: texts.py BERT_FOLDER TEXT OUTPUT

OUTPUT (JSON) gets by name: "32x32", 32 texts of 32 tokens; "mix", 64 texts of 4 to 256 tokens in random order: 32
sentences, 24 paragraphs, 8 runs of four paragraphs; "1x8", "1x32" and "1x128", a text alone; "accuracy", 200 texts as those of "mix". Special tokens count.
"""

import json
import random
import re
import sys
from pathlib import Path

from tokenizers import Tokenizer

SHORTEST, LONGEST = 4, 256


def cut(tokens, length):
    """The first `length` tokens, with the one that ends a text."""
    return tokens[: length - 1] + tokens[-1:]


def main():
    folder, text, output = map(Path, sys.argv[1:])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(part):
        return tokenizer.encode(part).ids

    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.read_text())]
    sentences = [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+", paragraph)]
    runs = [" ".join(paragraphs[n : n + 4]) for n in range(0, len(paragraphs), 4)]
    rng = random.Random(16)

    def mixed(*counts):
        mix = []
        for parts, count in zip((sentences, paragraphs, runs), counts):
            fitting = [ids for ids in map(tokens, parts) if len(ids) >= SHORTEST]
            mix += [cut(ids, LONGEST) for ids in rng.sample(fitting, count)]
        rng.shuffle(mix)
        return mix

    mix = mixed(32, 24, 8)
    long = [ids for ids in map(tokens, paragraphs) if len(ids) >= 130]
    cases = {"32x32": [cut(ids, 32) for ids in rng.sample(long, 32)], "mix": mix}
    for length in (8, 32, 128):
        cases[f"1x{length}"] = [cut(long[0], length)]
    cases["accuracy"] = mixed(100, 75, 25)
    output.write_text(json.dumps(cases))
    lengths = sorted(map(len, mix))
    print(f"mix: {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(mix) // 2]}, sum {sum(lengths)}")


if __name__ == "__main__":
    main()
