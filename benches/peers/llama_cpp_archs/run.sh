#!/bin/sh
# Compares smallmind's logits with llama.cpp's on the random models of llama.cpp's own suite of architectures.
#
# usage: benches/peers/llama_cpp_archs/run.sh [OPTION...]
#
# OPTIONs are those of suite.py; with --write, the table of docs/models.md is made again. Builds llama.cpp's
# programs once from its source in the package llama-cpp-python (12 minutes on two cores, in target/peers), then
# makes the models of three seeds (2.7 GB). Needs a C++ compiler (CC and CXX choose it) and python3; CMake comes from
# its package where the system has none.
. "$(dirname -- "$0")/../common.sh"

folder=$repository/target/peers/llama_cpp_archs
package=llama_cpp_python-0.3.36
packages='gguf==0.19.0 numpy==2.4.6'

if [ "$(cat "$folder/ready" 2>/dev/null)" != "$package, $packages" ]; then
    python3 -m venv "$folder/venv" || fail "python3 with its venv module is needed"
    "$folder/venv/bin/pip" install --quiet $packages scikit-build-core >&2
    if ! command -v cmake >/dev/null; then
        "$folder/venv/bin/pip" install --quiet cmake >&2 || fail "cmake is needed"
        PATH=$folder/venv/bin:$PATH
    fi
    "$folder/venv/bin/pip" download --quiet --no-deps --no-build-isolation --no-binary llama-cpp-python \
        --dest "$folder" llama-cpp-python==0.3.36 >&2 || fail "the source of llama.cpp can't be had"
    tar -xzf "$folder/$package.tar.gz" -C "$folder"
    echo "run.sh: building llama.cpp's programs" >&2
    cmake -S "$here" -B "$folder/build" -DLLAMA_CPP="$folder/$package/vendor/llama.cpp" >&2
    cmake --build "$folder/build" --target programs --parallel "$(nproc)" >&2
    echo "$package, $packages" >"$folder/ready"
fi

cargo build --release --quiet --example logits --manifest-path "$repository/Cargo.toml"
PYTHONDONTWRITEBYTECODE=1 exec "$folder/venv/bin/python" "$here/suite.py" "$folder/build/bin" "$built/examples/logits" "$@"
