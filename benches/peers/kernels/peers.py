"""Which libraries are compared, where run.sh has put them, and what makes each fast."""

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Variant:
    """One way to start a library; of several, the fastest counts at each shape."""

    name: str
    command: list
    env: dict = field(default_factory=dict)


@dataclass
class Peer:
    """A library and its column; `missing` says why it has none of the figures."""

    name: str
    package: str
    groups: tuple
    variants: list
    missing: str = ""


def threads_env(threads):
    """Every runtime's variable for the number of threads."""
    count = str(threads)
    names = ("OMP", "MKL", "OPENBLAS", "BLIS", "MATMUL", "RAYON")
    return {f"{name}_NUM_THREADS": count for name in names} | {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE"}


def first(root, *patterns):
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            return str(path)
    return None


def blas(root, name, package, kind, libraries, envs, missing, groups=("matmul",)):
    """A BLAS; `libraries` are patterns under `root`, `envs` the settings to try by name."""
    library = first(root, *libraries)
    worker = str(root / "bin/blas")
    variants = [Variant(label, [worker, "THREADS", library, kind], env) for label, env in envs.items()]
    return Peer(name, package, groups, variants if library else [], "" if library else missing)


def mkl_layers(threads):
    if threads == 1:
        return {"sequential": {"MKL_THREADING_LAYER": "SEQUENTIAL"}}
    return {"Intel OpenMP": {"MKL_THREADING_LAYER": "INTEL", "KMP_BLOCKTIME": "50"}}


def crates(root):
    library = first(root, "crates/release/libpeer_crates.so")
    manifest = Path(__file__).with_name("crates").joinpath("Cargo.toml").read_text()
    for name, version in re.findall(r'^(\w+) = \{ version = "=([^"]*)"', manifest, re.MULTILINE):
        command = [str(root / "bin/crates"), "THREADS", str(library), name, version]
        variants = [Variant("", command)] if library else []
        yield Peer(name, f"crate {name}", ("matmul",), variants, "" if library else "didn't build")


def built(root, name, package, groups, arguments=(), missing="didn't install or build"):
    """A library with a worker of its own, which is there if the library is."""
    worker = root / "bin" / name
    there = worker.exists()
    command = [str(worker), "THREADS", *arguments]
    return [Variant("", command)] if there else [], "" if there else missing


def all_peers(root, ours, threads):
    """Ours first. `root` is the folder that run.sh filled, `ours` the library that it built."""
    missing = "package not to be had here"
    everything = ("matmul", "elementwise", "rows", "attention")
    yield Peer("smallmind", "this library", everything, [Variant("", [str(root / "bin/ours"), "THREADS", str(ours)])])

    onednn = [
        Variant(worker.name.removeprefix("onednn-"), [str(worker), "THREADS"])
        for worker in sorted(root.glob("bin/onednn-*"))
    ]
    yield Peer(
        "oneDNN",
        "crate onednn-src, PyPI onednn-cpu-gomp",
        ("matmul", "elementwise", "rows"),
        onednn,
        "" if onednn else missing,
    )

    cores = {core: {"OPENBLAS_CORETYPE": core} for core in ("SkylakeX", "SapphireRapids")}
    yield blas(
        root,
        "OpenBLAS",
        "PyPI scipy-openblas32",
        "openblas",
        ["venv/lib/python*/site-packages/scipy_openblas32/lib/*.so"],
        cores,
        missing,
    )
    yield blas(
        root,
        "MKL",
        "PyPI mkl",
        "mkl",
        ["venv/lib/libmkl_rt.so.*"],
        mkl_layers(threads),
        missing,
        ("matmul", "elementwise"),
    )
    yield blas(
        root,
        "BLIS",
        "Debian libblis4-openmp",
        "blis",
        ["debian/usr/lib/*/blis-openmp/libblis.so.*"],
        {"skx": {"BLIS_ARCH_TYPE": "skx"}},
        missing,
    )
    pattern = "venv/lib/python*/site-packages/aoclda.libs/libblis-mt-*"
    # Its OpenMP lies beside it, where only Python's loader would look.
    beside = {"LD_LIBRARY_PATH": str(Path(first(root, pattern) or "").parent), "AOCL_ENABLE_INSTRUCTIONS": "avx512"}
    zen = {name: beside | {"BLIS_ARCH_TYPE": name} for name in ("zen4", "zen5")}
    yield blas(root, "AOCL", "PyPI aoclda", "aocl", [pattern], zen, missing)
    yield from crates(root)

    variants, why = built(root, "torch", "", ())
    yield Peer("PyTorch", "PyPI torch", ("elementwise", "rows", "attention"), variants, why)
    ort = root / "venv/lib"
    there = first(ort, "python*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
    script = str(Path(__file__).with_name("onnx_worker.py"))
    variants = [Variant("", [str(root / "venv/bin/python"), script, "THREADS"])] if there else []
    yield Peer(
        "ONNX Runtime", "PyPI onnxruntime", ("elementwise", "rows", "attention"), variants, "" if there else missing
    )
    ggml = first(root.parent, "llama_cpp/lib/python*/site-packages/llama_cpp/lib/libggml.so")
    variants = [Variant("", [str(root / "bin/ggml"), "THREADS", ggml])] if ggml else []
    yield Peer(
        "ggml",
        "PyPI llama-cpp-python",
        ("elementwise", "rows", "attention"),
        variants,
        "" if ggml else "llama_cpp/run.sh hasn't built it",
    )
