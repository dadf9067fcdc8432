"""Writes the vectors of all cases in plain f64: reference.py BERT_FOLDER TEXTS OUTPUT (.npz)."""

import json
import sys
from pathlib import Path

import numpy as np
from bert import Bert

folder, texts, output = map(Path, sys.argv[1:])
bert, cases = Bert(folder), json.loads(texts.read_text())
np.savez(output, **{name: np.stack([bert.vector(text) for text in case]) for name, case in cases.items()})
