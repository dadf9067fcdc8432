"""Makes folder-vocabularies.json: small tokenizer.json files of each kind, and the tokens of texts.

usage: folder_vocabularies.py TEXT

TEXT is a text to train on (any book). The tokens are those of the `tokenizers` package. Unigram's texts are without runs
of spaces and special tokens among words, around which SentencePiece and this package disagree. Made with tokenizers 0.22.2.
"""

import json
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).parent.parent / "folder-vocabularies.json"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = ["The 12 quick foxes don't jump!", "x", "Ünïcödé ﬁne 東京 🦊", "a <|im_end|> b", "the cat sat on\nthe mat"]
MORE = ["  two  spaces\n\n\n and lines", "\tdef f(x):\n    return x", " leading"]
SIZE = 400


def around(first, last, ids):
    single = " ".join(([first] if first else []) + ["$A"] + ([last] if last else []))
    return processors.TemplateProcessing(single=single, special_tokens=[(text, ids[text]) for text in (first, last) if text])


def byte_level(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.post_processor = around(None, "<|endoftext|>", tokenizer.get_vocab())
    return tokenizer, {"eos_token": "<|im_end|>"}


def sentence_piece(lines, prepends):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prepends else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, limit_alphabet=60)
    tokenizer.train_from_iterator([line.replace("\n", "") for line in lines], trainer)
    # Names of bytes are ordinary tokens.
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = described["added_tokens"][:3]
    described["added_tokens"].append(described["added_tokens"][2] | {"id": len(described["model"]["vocab"]), "content": "<|im_end|>"})
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = around("<s>", None, tokenizer.get_vocab())
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


def unigram(lines):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.post_processor = around("<s>", "</s>", tokenizer.get_vocab())
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}


def word_piece(lines):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|im_end|>"]
    tokenizer.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special))
    tokenizer.post_processor = around("[CLS]", "[SEP]", tokenizer.get_vocab())
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}


def main():
    lines = Path(sys.argv[1]).read_text(encoding="utf-8", errors="ignore").splitlines(keepends=True)[:4000]
    golden = {}
    for name, (tokenizer, config), texts in [
        ("bytes", byte_level(lines), TEXTS + MORE),
        ("pieces", sentence_piece(lines, True), TEXTS + MORE),
        ("pieces without a space in front", sentence_piece(lines, False), TEXTS + MORE),
        ("unigram", unigram(lines), [text for text in TEXTS if "<|" not in text]),
        ("words", word_piece(lines), TEXTS + MORE),
    ]:
        ids = [[text, tokenizer.encode(text).ids] for text in texts]
        golden[name] = {"tokenizer.json": json.loads(tokenizer.to_str()), "config": config, "texts": ids}
    OUT.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
