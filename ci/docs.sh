#!/usr/bin/env bash
# The documentation builds without a warning, and its examples run as pasted.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --exclude crosslane-tests --exclude crosslane-checks --no-deps --all-features
echo "rustdoc: no warning in what is published"
cargo test --quiet --workspace --all-features --doc
