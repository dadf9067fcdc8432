"""Makes greedy.json: 64 greedy tokens after each of three prompts, by llama.cpp.

Made with llama-cpp-python 0.3.36 (llama.cpp 0.5.0-dev), weights widened to f32.
`--as-it-is` prints where the unwidened model's choice differs first, if it does.

usage: greedy.py MODEL [--as-it-is]
"""

import json
import sys
from pathlib import Path

import numpy as np
from oracle import VERSIONS, Context, Model, widened

LENGTH = 64
PROMPTS = {
    "prose": "The old lighthouse keeper climbed the stairs one last time. From the window he could see",
    "chat": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nExplain in a few sentences why the sky is blue.<|im_end|>\n<|im_start|>assistant\n",
    "code": "def is_prime(n):\n    \"\"\"Return True if n is a prime number.\"\"\"\n",
}


def continuation(model, prompt):
    """Greedy steps after `prompt`: each the two best ids and their logits."""
    context, steps = Context(model), []
    logits = context.logits(prompt)[-1]
    while len(steps) < LENGTH:
        best = np.argsort(-logits, kind="stable")[:2]
        steps.append({"ids": best.tolist(), "logits": [float(logits[n]) for n in best]})
        logits = context.logits([int(best[0])])[-1]
    return steps


def main(path, compare=False):
    plain = Model(path)
    golden = {"made_with": VERSIONS, "prompts": []}
    with widened(path) as copy:
        model = Model(copy)
        for name, text in PROMPTS.items():
            tokens = model.tokenize(text, special=True)
            steps = continuation(model, tokens)
            ids = [step["ids"][0] for step in steps]
            golden["prompts"].append(
                {
                    "name": name,
                    "text": text,
                    "tokens": tokens,
                    "continuation": ids,
                    "continuation_text": model.detokenize(ids).decode(),
                    "steps": steps,
                }
            )
            if compare:
                others = [step["ids"][0] for step in continuation(plain, tokens)]
                first = next((n for n in range(LENGTH) if ids[n] != others[n]), None)
                gaps = sorted(step["logits"][0] - step["logits"][1] for step in steps)
                print(name, "differs first at", first, "smallest gaps", gaps[:4])
                if first is not None:
                    print("  there the gap is", steps[first]["logits"][0] - steps[first]["logits"][1])
    Path(__file__).parent.parent.joinpath("greedy.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], "--as-it-is" in sys.argv[2:])
