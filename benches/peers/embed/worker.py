"""A process of one program, which compare.py asks for vectors and times.

usage: worker.py KIND THREADS SETTINGS TEXTS

SETTINGS is JSON, TEXTS the file of texts.py. Each line of standard input is a question in JSON, with the name of a
case, the size of its batches and whether texts are sorted by length, and has one line of answer: {"vectors": FILE}
writes them as .npy in the order of the case, {"seconds": S} runs for so long and tells the seconds of a run.
"""

import json
import sys
import time

import engines
import numpy as np


def batches_of(texts, question):
    """Batches, and the place of each text in them."""
    order = list(range(len(texts)))
    if question["sorted"]:
        order.sort(key=lambda n: len(texts[n]))
    size = question["batch"] or len(order)
    return [[texts[n] for n in order[first : first + size]] for first in range(0, len(order), size)], order


def main():
    kind, threads, settings, path = sys.argv[1:]
    program = engines.make(kind, int(threads), json.loads(settings))
    with open(path) as file:
        cases = json.load(file)
    prepared = {}
    print("{}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        key = question["case"], question["batch"], question["sorted"]
        if key not in prepared:
            batches, order = batches_of(cases[question["case"]], question)
            prepared[key] = program.prepare(batches), order
            program.run(prepared[key][0])
        batches, order = prepared[key]
        if "vectors" in question:
            vectors = np.empty_like(rows := program.run(batches))
            vectors[order] = rows
            np.save(question["vectors"], vectors)
            answer = {}
        else:
            runs, begin = 0, time.perf_counter()
            while (taken := time.perf_counter() - begin) < question["seconds"] or runs == 0:
                program.run(batches)
                runs += 1
            answer = {"seconds": taken / runs}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
