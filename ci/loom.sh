#!/usr/bin/env bash
# Every loom model, each over its floor of executions; then every ordering that is not Relaxed is weakened in turn, and
# some model must fail.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

# Sites with an ordering that the models touch: one mutant each. Raise it when a module brings more.
least_ordering_mutants=86

build() {
    # Nobody debugs these, and what takes the time is loom itself, which is optimised as always.
    RUSTFLAGS="--cfg crosslane_loom" CARGO_TARGET_DIR="$target/loom" CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo test --config profile.release.package.crosslane-core.opt-level=1 --quiet --release -p crosslane-core --features loom --test 'loom_*' --no-run --message-format=json
}

mapfile -t binaries < <(build | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
files=(core/tests/loom_*.rs)
if [ "${#binaries[@]}" != "${#files[@]}" ]; then
    echo "fault: built ${#binaries[@]} of the ${#files[@]} files core/tests/loom_*.rs"
    exit 1
fi
cargo build --quiet -p crosslane-checks
keep_stacks
"$target/debug/crosslane-checks" loom "$least_ordering_mutants" "${binaries[@]}"
