"""Makes vocabularies/: small vocabularies of each kind, and what llama.cpp makes of texts with them.

The vocabularies are cut from those in llama.cpp's source. `tokenize` is tokenize.cpp, built against that source.

usage: vocabularies.py MODELS_FOLDER TOKENIZE
"""

import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

TARGET = Path(__file__).parent.parent / "vocabularies"
# One name of each family of pre-tokenizers.
PRES = """default gpt-2 smollm llama-bpe dbrx glm4 jais-2 minicpm5 qwen2 qwen35 ufakzeka laguna bailingmoe seed-coder
exaone-moe falcon tekken gpt-4o granite-embed-multi-97m tiny_aya youtu kimi-k2 deepseek-v3 spark2_5 afmoe deepseek-llm
deepseek-coder bloom viking superbpe chameleon""".split()

PIECES = """the of and Hello WORLD don't I'LL we've it'S he'd You're foo_bar camelCase HTTPServer naïve café Straße ÉCOLE
résumé İstanbul ſhip 'ſ return if( {} => // http://a.b/c?d=e&f 3.14 1,000,000 12345678 007 привет ЁЛКА γειά σου שלום
مرحبا हिन्दी नमस्ते ไทย ภาษา 日本語 カタカナ ひらがな 漢字 中文 한국어 ಕನ್ನಡ ქართული 𝔘𝔫𝔦 🦙 👨‍👩‍👧 🇩🇪 é ö ﬁ ² ½ Ⅷ ① ٣٤٥٦ १२३ ３４５
™ € … — “quoted” «y» 。 ， ！ ｆｕｌｌ ▁ <s> </s> <unk> <0x0A> <|end|> <|user|> [CLS] ##ing <mask> \x00 \x7f \u00ad
\u200b \ufeff \ufffd \U000e0041 \U0010ffff \ue000 \u0378""".split()
SEPARATORS = [" "] * 6 + [""] * 4 + ["\n", "\t", "  ", "   ", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2028"]
SEPARATORS += ["\u0085", "\v", "    ", "." , ", ", "'", " " * 13, "\n\n\n\n"]


def texts(count):
    pick = random.Random(5)
    made = ["", " ", "\n", "  a", "a  ", "'s", "ab " * 9]
    while len(made) < count:
        parts = [pick.choice(PIECES) + pick.choice(SEPARATORS) for _ in range(pick.randint(1, 8))]
        made.append("".join(parts).encode("utf-8").decode("utf-8"))
    return made


def charsmap(rules):
    """SentencePiece's compiled form of {sequence: replacement}."""
    replacements, values = b"", {}
    tree = {}
    for sequence, replacement in rules.items():
        values[sequence.encode()] = len(replacements)
        replacements += replacement.encode() + b"\0"
        node = tree
        for byte in sequence.encode():
            node = node.setdefault(byte, {})
    units, used = np.zeros(1 << 14, np.uint32), {0}

    def place(node, at, path):
        labels = sorted(node) + ([0] if path in values else [])
        base = next(b for b in range(1, 1 << 13) if all((b ^ label) not in used for label in labels))
        # The distance to the children, so that the index of a child is at ^ distance ^ label.
        units[at] |= np.uint32(((at ^ base) << 10) | (0x100 if path in values else 0))
        used.update(base ^ label for label in labels)
        if path in values:
            units[base] = np.uint32(0x80000000 | values[path])
        for byte, child in node.items():
            units[base ^ byte] = byte
            place(child, base ^ byte, path + bytes([byte]))

    place(tree, 0, b"")
    array = units[: (max(used) | 255) + 1].tobytes()
    return struct.pack("<I", len(array)) + array + replacements


def rules():
    made = {chr(0xFEE0 + c): chr(c) for c in range(0x21, 0x7F)}
    made |= {c: " " for c in "\t\n\r\u00a0\u3000"} | {"\u200b": "", "\u00ad": "", "\ufeff": ""}
    return made | {"½": "1/2", "ﬁ": "fi", "…": "...", "①": "1", "²": "2", "e\u0301": "é", "™": "TM", "Ⅷ": "VIII"}


class Cut:
    """Some of a vocabulary's tokens, by their ids, as a file of its own."""

    def __init__(self, folder, name):
        self.reader = gguf.GGUFReader(folder / f"ggml-vocab-{name}.gguf")
        self.tokens = self.field("tokenizer.ggml.tokens")
        self.types = self.field("tokenizer.ggml.token_type")
        self.scores = self.field("tokenizer.ggml.scores")
        self.merges = self.field("tokenizer.ggml.merges")

    def field(self, key):
        field = self.reader.get_field(key)
        return field and field.contents()

    def write(self, name, ids, merges=None, special=(), **extra):
        ids = sorted(set(ids))
        place = {old: new for new, old in enumerate(ids)}
        writer = gguf.GGUFWriter(TARGET / f"{name}.gguf", self.field("general.architecture"))
        writer.add_name(self.field("general.name"))
        writer.add_tokenizer_model(self.field("tokenizer.ggml.model"))
        writer.add_token_list([self.tokens[id] for id in ids])
        writer.add_token_types([self.types[id] for id in ids])
        if self.scores:
            writer.add_token_scores([self.scores[id] for id in ids])
        if merges:
            writer.add_token_merges(merges)
        for key, id in special:
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", place[id])
        for key in ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"):
            value = self.field(f"tokenizer.ggml.{key}")
            if value is not None:
                writer.add_bool(f"tokenizer.ggml.{key}", value)
        for key, value in extra.items():
            writer.add_key_value(f"tokenizer.ggml.{key}", *value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()

    def closed(self, count, start):
        """Ids of `start`, of `count` merges whose parts are there, and those merges."""
        by_text = {text: id for id, text in enumerate(self.tokens)}
        kept, merges = {self.tokens[id] for id in start}, []
        for merge in self.merges:
            left, right = merge.split(" ")
            if len(merges) < count and left in kept and right in kept and left + right in by_text:
                kept.add(left + right)
                merges.append(merge)
        return [by_text[text] for text in kept], merges


def cuts(folder):
    bpe = Cut(folder, "llama-bpe")
    ids, merges = bpe.closed(900, range(256))
    bpe.write("bpe", ids + [128000, 128001, 128009], merges, [("bos", 128000), ("eos", 128001)])
    gemma = Cut(folder, "gemma-4")
    start = [id for id, kind in enumerate(gemma.types) if kind != 1]
    start += [id for id, text in enumerate(gemma.tokens) if len(text) == 1 and ord(text) < 0x500 or set(text) == {"\n"}]
    ids, merges = gemma.closed(700, start)
    gemma.write("gemma4", ids, merges, [("bos", 2), ("eos", 1), ("unknown", 3)])
    phi = Cut(folder, "phi-3")
    ids = list(range(900)) + [id for id, text in enumerate(phi.tokens) if len(text) == 1 and ord(text) < 0x3100]
    special = [("bos", 1), ("eos", 32000), ("unknown", 0)]
    phi.write("sentencepiece", ids + list(range(32000, 32011)), special=special)
    nomic = Cut(folder, "nomic-bert-moe")
    ids = list(range(900)) + [id for id, text in enumerate(nomic.tokens) if len(text) == 1 and ord(text) < 0x3100]
    special = [("bos", 0), ("eos", 2), ("unknown", 3), ("seperator", 2)]
    compiled = (list(charsmap(rules())), gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8)
    nomic.write("unigram", ids + [250001], special=special, precompiled_charsmap=compiled)
    bert = Cut(folder, "bert-bge")
    ids = [0, 100, 101, 102, 103] + list(range(999, 2600))
    special = [("bos", 101), ("seperator", 102), ("unknown", 100), ("mask", 103)]
    bert.write("wordpiece", ids, special=special)


def main(folder, tokenize):
    TARGET.mkdir(exist_ok=True)
    cuts(Path(folder))
    made = texts(60)
    with tempfile.NamedTemporaryFile() as file:
        file.write(struct.pack("<I", len(made)))
        for text in made:
            file.write(struct.pack("<I", len(text.encode())) + text.encode())
        file.flush()

        def ids(vocabulary, flags, pre=()):
            command = [tokenize, TARGET / f"{vocabulary}.gguf", file.name, *flags, *pre]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            return [[int(id) for id in line.split()] for line in lines]

        cases = [{"file": "bpe", "pre": pre, "plain": ids("bpe", "00", [pre])} for pre in PRES]
        for kind in ("gemma4", "sentencepiece", "unigram", "wordpiece"):
            cases.append({"file": kind, "plain": ids(kind, "00"), "special": ids(kind, "11")})
    golden = json.dumps({"texts": made, "cases": cases}, separators=(",", ":"), ensure_ascii=True)
    (TARGET / "ids.json").write_text(golden.replace('{"file"', '\n{"file"') + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
