#!/bin/sh
# Compares smallmind with llama.cpp on one model, in prefill and decode speed.
#
# usage: benches/peers/llama_cpp/run.sh MODEL [ROUNDS [JSON]]
#
# Builds llama.cpp once, for this machine, from its package llama-cpp-python
# (10 minutes on two cores, in target/peers); a comparison then takes about three.
# JSON is a file for the figures, from which docs/benchmarks.py draws.
# CC and CXX choose its compiler. Without them clang is taken if there is one:
# gcc 12 miscompiles its AMX kernels (they die where a tile is configured), and
# those are its fastest where the CPU has AMX.
set -eu

fail() {
    echo "run.sh: $*" >&2
    exit 1
}

[ $# -ge 1 ] && [ $# -le 3 ] || fail "usage: $0 MODEL [ROUNDS [JSON]]"
[ -f "$1" ] || fail "no such file: $1"
absolute() { printf '%s\n' "$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")"; }
model=$(absolute "$1")
json=${3:+$(absolute "$3")}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../../.."
venv=target/peers/llama_cpp

if [ ! -f "$venv/ready" ]; then
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
    "$venv/bin/pip" install --quiet --no-binary llama-cpp-python \
        llama-cpp-python==0.3.36 >&2 || fail "llama-cpp-python couldn't be built"
    touch "$venv/ready"
fi

cargo build --release --quiet
exec "$venv/bin/python" "$here/compare.py" "${CARGO_TARGET_DIR:-target}/release/smallmind" \
    "$venv/bin/python" "$model" ${2:+--rounds "$2"} ${json:+--json "$json"}
