"""Makes families/NAME-shared.json and .logits.bin: models whose heads of values share queries and keys.

usage: delta.py PROGRAM

llama.cpp's suite has as many heads of keys as of values in the families with a gated delta rule, where the families
differ in which ones belong together. These are the suite's models with two heads of keys and four of values, of half
the size. PROGRAM is benches/peers/llama_cpp_archs's logits; families.py has made the models' files before.
"""

import json
import struct
import sys

import numpy as np

from families import COLUMNS, FOLDER, ROWS, TOKENS, dumped, logits

NAMES = ["qwen3next-moe", "qwen35-dense"]
KEY_HEADS, HEADS, HEAD = 2, 4, 64
KEYS, VALUES = KEY_HEADS * HEAD, HEADS * HEAD
SIZES = {".ssm.group_count": KEY_HEADS, ".ssm.time_step_rank": HEADS, ".ssm.state_size": HEAD}
WIDTHS = {
    "attn_qkv.weight": 2 * KEYS + VALUES,
    "ssm_conv1d.weight": 2 * KEYS + VALUES,
    "ssm_in.weight": 2 * KEYS + 2 * VALUES,
    "ssm_ba.weight": 2 * HEADS,
    "ssm_alpha.weight": HEADS,
    "ssm_beta.weight": HEADS,
    "ssm_dt.bias": HEADS,
    "ssm_a": HEADS,
    "ssm_norm.weight": HEAD,
}


def shared(golden):
    """The model with other heads in its recurrent layers."""
    common = {key: kind for key, kind, _ in json.loads(FOLDER.joinpath("common.json").read_text())["metadata"]}
    own = {pair[0]: pair for pair in golden["metadata"]}
    for key, size in SIZES.items():
        if key in own:
            own[key][2] = size
        else:
            golden["metadata"].append([key, common[key], size])
    for name, dims, *_ in golden["tensors"]:
        dims[-1] = WIDTHS.get(name.removeprefix("blk.*."), dims[-1])
    return golden


for name in NAMES:
    golden = shared(json.loads(FOLDER.joinpath(f"{name}.json").read_text()))
    rows = logits(sys.argv[1], golden)
    kept = rows[ROWS, :COLUMNS].astype("<f4")
    header = struct.pack("<4s4I", b"SMFL", 1, TOKENS, *kept.shape)
    FOLDER.joinpath(f"{name}-shared.json").write_text(dumped(golden))
    content = header + np.array(ROWS, "<u4").tobytes() + kept.tobytes()
    FOLDER.joinpath(f"{name}-shared.logits.bin").write_bytes(content)
    print(f"{name}-shared: logits of {rows.std():.2f}, at most {abs(rows).max():.2f}")
