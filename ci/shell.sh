#!/usr/bin/env bash
# The scripts: shellcheck.
set -euo pipefail
. "$(dirname "$0")/lib/tools.sh"

has shellcheck || apt_install shellcheck
has shellcheck || skip shellcheck "not installed"
scripts=(.ci/run ci/*.sh ci/lib/*.sh)
shellcheck -x -P SCRIPTDIR "${scripts[@]}"
echo "shellcheck: ${#scripts[@]} scripts"
