#!/usr/bin/env bash
# Segments shared with the real neighbours: Python's multiprocessing.shared_memory, and the shared_memory crate. And that
# Python's pools really do what tests/it/pool_pains.rs says of them.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

at_least 5 cargo test --quiet -p crosslane-shm --features shared_memory --test adopted
at_least 1 cargo test --quiet -p crosslane-shm --features shared_memory --doc adopted
echo "the shared_memory crate: tested"

has python3 || apt_install python3-minimal libpython3-stdlib
python3 -c 'import multiprocessing.shared_memory' 2>/dev/null || skip python3 "with multiprocessing.shared_memory not installed"
at_least 8 cargo test --quiet -p crosslane-shm --test python
# Limits of tasks for each worker came with 3.11.
python3 -c 'import concurrent.futures.process, sys; sys.exit(sys.version_info < (3, 11))' ||
    skip python3 "with concurrent.futures, 3.11 or later, not installed"
at_least 11 cargo test --quiet --test pool_pains -- --ignored python_has_pain
echo "$(python3 --version): tested"
