#!/usr/bin/env bash
# The layout of the sources: rustfmt.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

rustup_component rustfmt fmt
cargo fmt --all --check
echo "rustfmt: $(git ls-files '*.rs' 2>/dev/null | wc -l) files"
