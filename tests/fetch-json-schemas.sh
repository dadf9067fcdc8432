#!/bin/sh
# Fetches the JSON-Schema-Test-Suite (MIT) into target/json-schemas, or into the folder given, and prints the folder's path
# as the last line of stdout:
#
#   SMALLMIND_JSON_SCHEMAS=$(tests/fetch-json-schemas.sh) cargo test --lib --features grammar public_suite
#
# usage: tests/fetch-json-schemas.sh [DIR]
#
# It comes inside the source package `jsonschema` on PyPI, so any registry or proxy that pip is configured for will do.
set -eu

package=jsonschema-4.23.0
sha256=d71497fef26351a33265337fa77ffeb82423f3ea21283cd9467bb03999266bc4

. "$(dirname -- "$0")/fetch.sh"

intact() {
    [ -f "$1/$package.tar.gz" ] && [ -d "$1/draft2020-12" ] && [ -d "$1/draft7" ] &&
        [ "$(sha256sum < "$1/$package.tar.gz" | cut -d ' ' -f 1)" = "$sha256" ]
}

download() {
    # No installation: only the archive is wanted.
    url=$(pip download --quiet --no-deps --no-binary :all: --dest "$work/$folder" jsonschema==4.23.0 2>&1) ||
        fail "pip couldn't download $package: $url"
    tar -xzf "$work/$folder/$package.tar.gz" -C "$work" "$package/json/tests" || fail "the package has no json/tests"
    mv -- "$work/$package/json/tests/draft2020-12" "$work/$package/json/tests/draft7" "$work/$folder/"
}

fetch json-schemas "$@"
