#!/bin/sh
# Compares this library's kernels with other libraries', shape by shape, by turns in one run.
#
# usage: benches/peers/kernels/run.sh [--quick] [--only REGEX] [--rounds N] [--seed N] [--json FILE]
#
# The first time it installs the peers from their packages and builds what they need, in target/peers/kernels (3 GB,
# most of it PyTorch; some minutes, oneDNN's compilation the longest). What can't be had is left out, and its column
# says so; its log is in target/peers/kernels/log. Deleting the folder, or a stamp in it, tries again.
# The comparison takes about half an hour, with --quick two minutes: each library runs alone, 150 ms at a time. The figures go to FILE, from which
# docs/kernels_peers.py draws, or else to target/peers/kernels/figures.json.
#   --only REGEX   of lines such as '1T matmul 64x64x64 NN'
#   --seed N       of 20 random shapes; the command prints the one that it takes
#   PEERS_SKIP     peers not to install, such as "torch onednn_src"
# ggml takes part where benches/peers/llama_cpp/run.sh has built llama.cpp.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
repo=$(CDPATH='' cd -- "$here/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}
root=$target/peers/kernels
CC=${CC:-cc}
CXX=${CXX:-c++}
jobs=$(getconf _NPROCESSORS_ONLN)
mkdir -p "$root/bin" "$root/log" "$root/stamps"

# Runs a step once: step NAME VERSION COMMAND…. A failure is noted and tried again the next time.
step() {
    name=$1
    version=$2
    stamp=$root/stamps/$name
    shift 2
    [ "$(cat "$stamp" 2>/dev/null)" != "$version" ] || return 0
    case " ${PEERS_SKIP:-} " in *" $name "*) return 0 ;; esac
    echo "run.sh: $name" >&2
    if "$@" >"$root/log/$name" 2>&1; then
        echo "$version" >"$stamp"
    else
        echo "run.sh: $name can't be had; see $root/log/$name" >&2
    fi
}

installed() { [ -f "$root/stamps/$1" ]; }
pip() { "$root/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }

# A worker: worker NAME SOURCE FLAGS…
worker() {
    output=$root/bin/$1
    source=$here/$2
    shift 2
    "$CC" -std=gnu11 -O2 -Wall -Wextra -I"$here" "$source" "$here/worker.c" "$here/check.c" \
        -o "$output.new" "$@" -ldl -lpthread -lm || return
    mv "$output.new" "$output"
}

site() { ls -d "$root"/venv/lib/python*/site-packages; }

install_debian() {
    mkdir -p "$root/debian"
    (cd "$root/debian" && apt-get download "$1" && dpkg -x "$1"_*.deb .)
}

# Its C++ library alone works without the CUDA one, but for two small libraries that it links to.
install_torch() {
    pip --no-deps torch==2.15.0 nvidia-cuda-runtime==13.2.* nvidia-cuda-cupti==13.2.* || return
    rm -f "$(site)"/torch/lib/libtorch_cuda*.so
}

# oneDNN's sources come in a crate; the packages with its library are old, or made for SYCL.
install_onednn_src() {
    mkdir -p "$root/onednn/fetch/src" "$root/onednn/build"
    : >"$root/onednn/fetch/src/lib.rs"
    cat >"$root/onednn/fetch/Cargo.toml" <<'END'
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
onednn-src = "=0.1.22"
END
    cargo vendor --quiet --manifest-path "$root/onednn/fetch/Cargo.toml" "$root/onednn/vendor" >/dev/null || return
    PATH=$root/venv/bin:$PATH
    cmake -G Ninja -S "$root/onednn/vendor/onednn-src/oneDNN" -B "$root/onednn/build" -DCMAKE_BUILD_TYPE=Release \
        -DONEDNN_BUILD_DOC=OFF -DONEDNN_BUILD_EXAMPLES=OFF -DONEDNN_BUILD_TESTS=OFF -DONEDNN_BUILD_GRAPH=OFF \
        -DONEDNN_ENABLE_WORKLOAD=INFERENCE \
        '-DONEDNN_ENABLE_PRIMITIVE=MATMUL;REORDER;ELTWISE;SOFTMAX;LAYER_NORMALIZATION' || return
    ninja -C "$root/onednn/build" -j "$jobs"
}

build_crates() { CARGO_TARGET_DIR=$root/crates cargo build --release --manifest-path "$here/crates/Cargo.toml"; }

onednn_worker() { # NAME INCLUDE… LIBRARIES
    worker "onednn-$1" onednn.c -I"$2" -I"$3" -L"$4" -ldnnl -Wl,-rpath,"$4"
}

torch_worker() {
    torch=$(site)/torch
    "$CC" -std=gnu11 -O2 -c -I"$here" "$here/worker.c" -o "$root/worker.o" || return
    "$CC" -std=gnu11 -O2 -c -I"$here" "$here/check.c" -o "$root/check.o" || return
    "$CXX" -std=c++20 -O1 -I"$here" -I"$torch/include" "$here/torch.cpp" "$root/worker.o" "$root/check.o" \
        -o "$root/bin/torch" -L"$torch/lib" -ltorch_cpu -lc10 -Wl,-rpath,"$torch/lib" \
        -Wl,--disable-new-dtags -Wl,--allow-shlib-undefined -ldl -lpthread
}

# Changes whenever a source does, so that workers are built again.
sum=$(cat "$here"/*.c "$here"/*.h "$here"/*.cpp | cksum | cut -d' ' -f1)

step venv 1 python3 -m venv "$root/venv"
step tools 1 pip cmake ninja
step openblas 1 pip scipy-openblas32==0.3.34.481.3
step mkl 1 pip mkl==2026.2.0
step aocl 1 pip --no-deps aoclda==5.3.0.1
step onednn_pypi 1 pip onednn-cpu-gomp==2023.2.0 onednn-devel-cpu-gomp==2023.2.0
step onnxruntime 1 pip onnxruntime==1.31.1 onnx==1.23.2 numpy
step blis 1 install_debian libblis4-openmp
step torch 1 install_torch
step crates "$(cksum <"$here/crates/Cargo.toml" | cut -d' ' -f1)" build_crates
step onednn_src 1 install_onednn_src

step worker_blas "$sum" worker blas blas.c
step worker_crates "$sum" worker crates crates.c
step worker_machine "$sum" worker machine machine.c -O3 -march=native
step worker_machine_avx2 "$sum" worker machine_avx2 machine.c -O3 -mavx2 -mfma
step worker_ggml "$sum" worker ggml ggml.c
onednn=$root/onednn
installed onednn_pypi && step worker_onednn_pypi "$sum" onednn_worker 3.2 \
    "$root/venv/include" "$root/venv/include" "$root/venv/lib"
installed onednn_src && step worker_onednn_src "$sum" onednn_worker 3.14 \
    "$onednn/vendor/onednn-src/oneDNN/include" "$onednn/build/include" "$onednn/build/src"
installed torch && step worker_torch "$sum" torch_worker

make --no-print-directory -s -C "$repo/c-tests" lib >&2
worker ours ours.c -I"$repo/include"

json=$root/figures.json
# -B: no compiled files among the sources.
python3 -B "$here/measure.py" "$root" "$target/shipped/lib/libsmallmind.so" --json "$json" "$@"
