"""What comparing first tokens and texts needs of a program, the same for smallmind and llama.cpp."""

import time

import numpy as np

PROMPTS = {
    "prose": "The old lighthouse keeper climbed the stairs one last time. From the window he could see",
    "code": 'def is_prime(n):\n    """Return True if n is a prime number."""\n',
    "list": "The seven days of the week are Monday, Tuesday,",
}
PROMPT, CONTINUED = 16, 64
CONTEXT = 256


def measure(start, tokenize, repetitions):
    """Times to the first token of a 16-token prompt, and greedy texts.

    `start()` loads a model and makes a context for CONTEXT positions; the context has `clear()`,
    `decode(tokens)` and `scores()`, the logits of the next token. `tokenize(context, text)` gives ids.
    """
    begin = time.perf_counter()
    context = start()
    loaded = time.perf_counter()
    prompt = [100 + 7 * n for n in range(PROMPT)]

    def first():
        context.decode(prompt)
        context.scores().argmax()

    first()
    load_to_first = time.perf_counter() - begin
    times = []
    for _ in range(repetitions):
        context.clear()
        begin_first = time.perf_counter()
        first()
        times.append(time.perf_counter() - begin_first)
    texts = {}
    for name, text in PROMPTS.items():
        context.clear()
        ids, gaps = tokenize(context, text), []
        context.decode(ids)
        for _ in range(CONTINUED):
            second, first_of_all = np.sort(np.partition(context.scores(), -2)[-2:]).tolist()
            ids.append(int(context.scores().argmax()))
            gaps.append(first_of_all - second)
            context.decode(ids[-1:])
        texts[name] = {"ids": ids, "gaps": gaps}
    return {
        "load_seconds": loaded - begin,
        "load_to_first": load_to_first,
        "first16": sorted(times)[len(times) // 2],
        "texts": texts,
    }
