#!/usr/bin/env bash
# Lints, as errors: every target with every feature, and core as the models see it.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

rustup_component clippy
cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
echo "clippy: the workspace, all targets and features"
RUSTFLAGS="--cfg crosslane_loom" CARGO_TARGET_DIR="$target/loom" \
    cargo clippy --quiet -p crosslane-core --features loom --all-targets -- -D warnings
echo "clippy: core under crosslane_loom"
