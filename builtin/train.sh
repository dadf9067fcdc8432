#!/bin/sh
# Makes stories.gguf again: text, training, quantising. README.md tells what each step gives. About an hour on two cores
# of 2025, most of it for the training; whatever was made before stays, and a training that was stopped goes on.
#
# usage: builtin/train.sh [DIR]    # target/builtin, unless another folder is given
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
folder=${1:-$repository/target/builtin}
mkdir -p "$folder"
cargo build --release --quiet --manifest-path "$repository/Cargo.toml"
smallmind=${CARGO_TARGET_DIR:-$repository/target}/release/smallmind

# 20,000 stories, each of a seed of its own. One that was cut off at its 255th token teaches nothing about ends.
if [ ! -f "$folder/stories.jsonl" ]; then
    model=$("$repository/tests/fetch-stories.sh")
    "$smallmind" convert "$model/model.bin" "$folder/stories15M.gguf" --type Q8_0 --force
    seq 20000 | sed 's/.*/{"prompt":"","seed":&}/' >"$folder/prompts.jsonl"
    resume=
    [ ! -f "$folder/answers.jsonl" ] || resume=--resume
    "$smallmind" batch -m "$folder/stories15M.gguf" "$folder/prompts.jsonl" --out "$folder/answers.jsonl" $resume \
        --parallel 64 --activations 8 -n 255 --ctx 256 --temp 1 --top-k 64 --top-p 0.95 --min-p 0
    # Its vocabulary puts a space before the first word.
    grep '"reason":"end-of-text"' "$folder/answers.jsonl" | sed 's/"text":" /"text":"/' >"$folder/stories.part"
    mv "$folder/stories.part" "$folder/stories.jsonl"
fi

resume=--force
[ ! -f "$folder/trained.gguf.state" ] || resume=--resume
"$smallmind" train --config "$repository/builtin/train.toml" $resume "$folder/stories.jsonl" --out "$folder/trained.gguf"
"$smallmind" quantize "$folder/trained.gguf" "$folder/stories.gguf" --type Q5_0 --force
