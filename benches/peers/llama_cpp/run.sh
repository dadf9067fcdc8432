#!/bin/sh
# Compares smallmind with llama.cpp on model files: speed, load, first token, texts; or accuracy; or vectors of texts.
#
# usage: benches/peers/llama_cpp/run.sh [speed|accuracy|cosine] [MODEL...] [-- OPTION...]
#
# Without a MODEL, all files of target/models/bench are taken; they are made first where they are missing
# (see models.py; 5 minutes, 4 GB). OPTIONs are those of compare.py (the default), accuracy.py
# or cosine.py, which takes models that give vectors.
# docs/benchmarks.json and its pages: run.sh -- --json docs/benchmarks.json && docs/benchmarks.py
# docs/parity.md's table: run.sh accuracy -- --write
#
# Builds llama.cpp once, for this machine, from its package llama-cpp-python (10 minutes on two cores, in
# target/peers); comparing one file then takes about ten.
# PEER_ISA=avx2 compares at the level that most processors have: smallmind's AVX2 kernels with a second build of
# llama.cpp, for AVX2 with FMA, F16C and BMI2 alone.
#
# CC and CXX choose its compiler. Without them clang is taken if there is one: gcc 12 miscompiles its AMX
# kernels (they die where a tile is configured), and those are its fastest where the CPU has AMX.
. "$(dirname -- "$0")/../common.sh"

venv=$repository/target/peers/llama_cpp
case ${PEER_ISA:-native} in
native) cmake_args= ;;
avx2)
    venv=${venv}_avx2
    export SMALLMIND_ISA=avx2
    cmake_args='-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON'
    cmake_args="$cmake_args -DGGML_BMI2=ON -DGGML_AVX_VNNI=OFF -DGGML_AVX512=OFF -DGGML_AVX512_VNNI=OFF"
    ;;
*) fail "PEER_ISA is native or avx2, not '$PEER_ISA'" ;;
esac
packages='llama-cpp-python==0.3.36 gguf==0.19.0'

tool=speed
case ${1:-} in speed | accuracy | cosine) tool=$1 && shift ;; esac
# From here on "$@" becomes: models, then options.
models=0
for argument in "$@"; do
    [ "$argument" != -- ] || break
    [ -f "$argument" ] || fail "no such file: $argument"
    models=$((models + 1))
done

if [ "$(cat "$venv/ready" 2>/dev/null)" != "$packages" ]; then
    if [ -z "${CC:-}" ]; then
        for version in '' -21 -20 -19 -18 -17 -16 -15 -14; do
            if command -v "clang++$version" >/dev/null; then
                export CC="clang$version" CXX="clang++$version"
                break
            fi
        done
    fi
    python3 -m venv "$venv" || fail "python3 with its venv module is needed"
    echo "run.sh: building llama.cpp with ${CC:-the default compiler}" >&2
    # pip's cache would hand one build to the other.
    CMAKE_ARGS="${CMAKE_ARGS:-} $cmake_args" "$venv/bin/pip" install --quiet --no-cache-dir --no-binary llama-cpp-python \
        $packages >&2 || fail "llama-cpp-python couldn't be built"
    echo "$packages" >"$venv/ready"
fi

if [ "$models" = 0 ]; then
    folder=$repository/target/models/bench
    "$venv/bin/python" "$here/models.py" "$("$repository/examples/fetch-model.sh")" "$folder"
    [ "${1:-}" != -- ] || shift
    set -- "$folder"/*.gguf "$@"
fi
# The options after the models: "--" itself goes, being no file.
count=$#
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    [ "$argument" = -- ] || set -- "$@" "$argument"
    count=$((count - 1))
done

# The workers import from this folder; nothing is to appear in it.
export PYTHONDONTWRITEBYTECODE=1
cargo build --release --quiet --manifest-path "$repository/Cargo.toml"
if [ "$tool" = speed ]; then
    exec "$venv/bin/python" "$here/compare.py" "$built/smallmind" "$venv/bin/python" "$@"
fi
exec "$venv/bin/python" "$here/$tool.py" "$built/libsmallmind.so" "$@"
