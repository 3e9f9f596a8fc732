#!/usr/bin/env bash
# Stress with real processes for STRESS_SECONDS (45): everything exactly once, no wake-up lost, nothing left. The seed is
# printed; `ci/stress.sh --seed N` repeats its choices, `--case TEXT` takes some of the cases.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

[ "$(uname -s)" = Linux ] || skip "stress" "needs Linux"
cargo test --quiet --release -p crosslane-tests --test stress -- --seconds "${STRESS_SECONDS:-45}" "$@"
