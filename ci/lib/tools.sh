# Sourced by the checks: where things are, and how a check says that it cannot be done here.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# Where builds of this repository go. Builds with other flags go to directories inside, so that none throws the others away.
# shellcheck disable=SC2034  # used by the scripts that source this
target=${CARGO_TARGET_DIR:-$PWD/target}
# What the runner counts as skipped, never as passed.
skipped=77

# skip TOOL REASON: ends the check as skipped.
skip() {
    echo "skipped: $1 $2"
    exit "$skipped"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# apt_install PACKAGE...: installs them if this user may; the caller looks whether they are there.
apt_install() {
    has apt-get && [ "$(id -u)" = 0 ] || return 0
    if [ ! -e "$target/.apt-updated" ]; then
        timeout 120 apt-get update -qq >/dev/null 2>&1 || true
        mkdir -p "$target"
        touch "$target/.apt-updated"
    fi
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq -y "$@" >/dev/null 2>&1 || true
}

# cargo_install CRATE SECONDS: installs a cargo subcommand that takes about so long to build, unless the runner has less left.
cargo_install() {
    has "$1" && return 0
    if [ "${CROSSLANE_CI_SECONDS_LEFT:-100000}" -lt "$2" ]; then
        skip "$1" "takes $2 s to build, and $CROSSLANE_CI_SECONDS_LEFT s are left"
    fi
    echo "building $1"
    timeout $((2 * $2)) cargo install --locked --quiet "$1" || skip "$1" "not installed and cannot be built"
}

# rustup_component NAME: ends the check as skipped if the active toolchain has no such component and none can be had.
rustup_component() {
    if has rustup && ! rustup component list --installed 2>/dev/null | grep -q "^$1"; then
        timeout 120 rustup component add "$1" >/dev/null 2>&1 || true
    fi
    cargo "${2:-$1}" --version >/dev/null 2>&1 || skip "$1" "not installed"
}

# nightly: ends the check as skipped if there is no nightly toolchain and none can be had.
nightly() {
    has rustup || skip nightly "not installed (no rustup)"
    rustup run nightly rustc --version >/dev/null 2>&1 ||
        timeout 300 rustup toolchain install nightly --profile minimal >/dev/null 2>&1 || true
    rustup run nightly rustc --version || skip nightly "not installed"
}

# at_least COUNT COMMAND...: runs tests, of which so many must pass: a filter that matches nothing is no success.
at_least() {
    local least=$1 report passed
    shift
    report=$("$@" 2>&1) || {
        echo "$report"
        return 1
    }
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' <<<"$report" | awk '{ sum += $1 } END { print sum + 0 }')
    if [ "$passed" -lt "$least" ]; then
        echo "$report"
        echo "fault: $passed tests passed, $least are the least: $*"
        return 1
    fi
    # Some say that they could not be tried here, or that what they show of others is no longer so.
    grep -oE '(skipped|mended): .*' <<<"$report" || true
    echo "$passed tests passed: $*"
}

# keep_stacks: builds ci/lib/stacks.rs, which whoever runs models preloads: it halves their time, and changes nothing else.
keep_stacks() {
    [ "$(uname -s)" = Linux ] || return 0
    mkdir -p "$target/stacks"
    rustc --edition 2024 -O -D warnings --crate-type cdylib ci/lib/stacks.rs -o "$target/stacks/libstacks.so"
    export CROSSLANE_STACKS=$target/stacks/libstacks.so
}
