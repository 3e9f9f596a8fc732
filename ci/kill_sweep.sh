#!/bin/sh
# Kills a process at every instruction of every operation on shared memory (release build; under 150 s on two cores) and
# prints one table: case, role, points, bad, seconds; then the seeded bugs, each of which must be found.
# Arguments go to the sweep: `ci/kill_sweep.sh --case mutex`.
set -eu
cd "$(dirname "$0")/.."
if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: the kill sweep needs the trap flag of x86-64 and Linux"
    exit 0
fi
exec cargo test --release -p crosslane-tests --test crash -- --full "$@"
