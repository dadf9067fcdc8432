"""What comparing first tokens and texts needs of a program, the same for smallmind and llama.cpp."""

import time

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
    `decode(tokens)` and `best()`, the likeliest next token. `tokenize(context, text)` gives ids.
    """
    begin = time.perf_counter()
    context = start()
    loaded = time.perf_counter()
    prompt = [100 + 7 * n for n in range(PROMPT)]

    def first():
        context.decode(prompt)
        context.best()

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
        ids = tokenize(context, text)
        context.decode(ids)
        for _ in range(CONTINUED):
            ids.append(context.best())
            context.decode(ids[-1:])
        texts[name] = ids
    return {
        "load_seconds": loaded - begin,
        "load_to_first": load_to_first,
        "first16": sorted(times)[len(times) // 2],
        "texts": texts,
    }
