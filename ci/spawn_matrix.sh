#!/usr/bin/env bash
# Processes of a program outside the workspace (tests/downstream/spawn), with and without `crosslane::init()`, in every way
# that programs are built: for development; with link-time optimisation and stripped; with panics that abort; static and
# without a build-id; with std as a shared library. In a library that tests use: by cargo test, and by cargo-nextest where it is
# installed. And what goes wrong must do so by an error: init() forgotten, a marker in the environment that means nothing.
# Seen to fail: without the constructors behind the hook; without the panic hook's own report under panic=abort.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

cp Cargo.lock tests/downstream/spawn/Cargo.lock
cd tests/downstream/spawn
# Beside this repository and ci/downstream.sh. The ways differ by flags and not by profile, so that what runs on the host is built once.
export CARGO_TARGET_DIR=$target RUST_BACKTRACE=0
host=$(rustc -vV | sed -n 's/^host: //p')
LD_LIBRARY_PATH=$(rustc --print sysroot)/lib/rustlib/$host/lib
export LD_LIBRARY_PATH
programs=$CARGO_TARGET_DIR/debug
report=

# fault WHAT: what the program said, and the end.
fault() {
    echo "$report"
    echo "fault: $1"
    exit 1
}

# check NAME PROGRAM: runs it with init() and without.
check() {
    report=$(timeout 60 "$2" init "$programs/other" 2>&1) || fault "$1, with init()"
    report=$(timeout 60 "$2" hook "$programs/other" 2>&1) || fault "$1, without init()"
    [ "$(grep -c '^main$' <<<"$report")" = 1 ] || fault "$1: main ran in a child"
    echo "spawn_matrix: $1"
}

# try NAME FLAGS: builds it so, and runs it.
try() {
    RUSTFLAGS=$2 CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet --bin spawn --target "$host"
    check "$1" "$CARGO_TARGET_DIR/$host/debug/spawn"
}

cargo fmt --check
cargo clippy --quiet --all-targets -- -D warnings
cargo build --quiet --bins
check "for development" "$programs/spawn"
for marker in hook:1:1 init:1:1 any:0:0 nonsense ""; do
    report=$(CROSSLANE_CHILD=$marker timeout 60 "$programs/other" 2>&1) || fault "'$marker' is believed"
    [ "$report" = "Ok(12)" ] || fault "'$marker' is believed"
done
report=$(CROSSLANE_CHILD=hook:1:32 timeout 60 "$programs/other" 2>&1 || true)
grep -q TooDeep <<<"$report" || fault "the depth in the environment does not count"
FIRST=1 timeout 60 "$programs/forgotten"
cargo test --quiet --test in_a_library
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --test in_a_library --show-progress none --status-level fail
    echo "spawn_matrix: by cargo-nextest"
else
    # It takes minutes to build; tests/it/process/harness.rs runs a test by itself as it does.
    echo "spawn_matrix: skipped: cargo-nextest not installed"
fi
CARGO_PROFILE_DEV_PANIC=abort try "with panics that abort" ""
try "static, without a build-id" "-C target-feature=+crt-static -C link-arg=-Wl,--build-id=none"
try "with std as a shared library" "-C prefer-dynamic"
CARGO_PROFILE_DEV_LTO=fat CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_CODEGEN_UNITS=1 CARGO_PROFILE_DEV_STRIP=true \
    CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false try "optimised at link time and stripped" ""
