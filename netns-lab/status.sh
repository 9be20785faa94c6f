#!/usr/bin/env bash
# Shows which daemons run and what the controller says about the mesh.
#
# Usage: sudo ./status.sh [-h|--help]
#
# For one node's own view: ./meshctl.sh --node node-a status
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

case ${1-} in
    '') ;;
    -h | --help) usage && exit ;;
    *) die "unknown argument: $1" "$0 --help" ;;
esac
require_root
require_tools ip
require_up
settings_of_the_lab

dead=()
while read -r name; do
    if ! is_running "$name"; then
        dead+=("$name")
    elif [[ $(readlink "/proc/$(pid_of "$name")/exe") == *' (deleted)' ]]; then
        warn "$name runs an older build of meshd; down.sh and up.sh replace it"
    fi
done < <(daemon_names)

if ((${#dead[@]} > 0)); then
    warn "not running: ${dead[*]} (up.sh restarts them, $LOGS says why)"
fi
meshctl_of controller status
