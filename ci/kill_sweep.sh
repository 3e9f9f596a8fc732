#!/usr/bin/env bash
# Kills a process at every instruction of every operation on shared memory (release build; under 150 s on two cores) and
# prints one table: case, role, points, bad, seconds; then the seeded bugs, each of which must be found.
# Arguments go to the sweep: `ci/kill_sweep.sh --case mutex`.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != x86_64 ]; then
    skip "kill sweep" "needs the trap flag of x86-64 and Linux"
fi
exec cargo test --release -p crosslane-tests --test crash -- --full "$@"
