# Shared by the run.sh of the folders beside it, which source it.
set -eu

fail() {
    echo "run.sh: $*" >&2
    exit 1
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
repository=$(CDPATH='' cd -- "$here/../../.." && pwd)
built=${CARGO_TARGET_DIR:-$repository/target}/release
