#!/usr/bin/env bash
# Kills a process at every instruction of every operation on shared memory (release build; some 6 minutes on two cores) and
# prints one table: case, role, points, bad, seconds; then the seeded bugs, each of which must be found; then what the same
# does to glibc's primitives. docs/crash.md must name the cases that were run.
# Arguments go to the sweep: `ci/kill_sweep.sh --case mutex`; `ci/kill_sweep.sh --markdown "$PWD/docs/crash.md"` writes that page.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != x86_64 ]; then
    skip "kill sweep" "needs the trap flag of x86-64 and Linux"
fi
exec cargo test --release -p crosslane-tests --test crash -- --full --documented "$PWD/docs/crash.md" "$@"
