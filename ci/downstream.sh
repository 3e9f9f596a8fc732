#!/usr/bin/env bash
# Crates outside the workspace use this one as anybody would: tests/downstream.
# facade: `crosslane` alone derives, shares and locks. bare: `crosslane-core` alone, without std. payments: a protocol of its own is
# model-checked, and its planted bug found. messages: the corpus of its fuzz target passes (ci/fuzz.sh runs the target).
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# What they have in common with this repository is there.
export CARGO_TARGET_DIR=$target

# in_crate NAME COMMAND...: with the versions that this repository has locked.
in_crate() {
    local name=$1
    shift
    cp Cargo.lock "tests/downstream/$name/Cargo.lock"
    (cd "tests/downstream/$name" && "$@")
}

for name in facade bare payments messages; do
    in_crate "$name" cargo fmt --check
    in_crate "$name" cargo clippy --quiet --all-targets -- -D warnings
done

in_crate facade cargo run --quiet

in_crate bare cargo run --quiet
# The lock file of who embeds core names nothing else.
if [ "$(grep -c '^name = ' tests/downstream/bare/Cargo.lock)" -gt 2 ]; then
    echo "core brings dependencies along:"
    grep '^name = ' tests/downstream/bare/Cargo.lock
    exit 1
fi
echo "a crate on crosslane-core alone runs without std"

model() {
    # Beside this repository's own models: loom is built once for both.
    RUSTFLAGS="--cfg crosslane_loom" CARGO_TARGET_DIR=$target/loom CARGO_PROFILE_RELEASE_DEBUG=0 in_crate payments \
        cargo test --quiet --release --test model "$@" -- --nocapture 2>&1
}
report=$(model) || {
    echo "$report"
    exit 1
}
grep '^model payments' <<<"$report"
if report=$(model --features planted); then
    echo "fault: the model of tests/downstream/payments did not find its planted bug"
    exit 1
fi
grep -q 'left: 1' <<<"$report" || {
    echo "fault: the planted bug of payments does not fail as it should:"
    echo "$report"
    exit 1
}
echo "and its planted bug is found"

at_least 2 in_crate messages cargo test --quiet
