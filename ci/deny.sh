#!/usr/bin/env bash
# The dependencies: licences, bans, sources; advisories where their database can be reached.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

cargo_install cargo-deny 300
cargo deny --log-level error --all-features check bans licenses sources
if timeout 120 cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error --all-features check advisories
else
    echo "skipped: advisories, their database cannot be reached"
fi
