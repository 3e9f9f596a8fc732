#!/usr/bin/env bash
# The comparison with the rivals compiles, without a lint. It is not run: a busy machine measures nothing.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

rustup_component clippy
cargo clippy --quiet --locked --manifest-path benches/compare/Cargo.toml --target-dir "$target/compare" -- -D warnings
echo "benches: compile with every rival"
