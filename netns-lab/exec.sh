#!/usr/bin/env bash
# Runs a command in a daemon's network namespace.
#
# Usage: sudo ./exec.sh NODE|controller COMMAND [ARGUMENT…]
#
# As in: ./exec.sh node-a ping -c 3 10.76.0.2
#        ./exec.sh node-a ip -br addr
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

case ${1-} in
    -h | --help) usage && exit ;;
esac
(($# >= 2)) || die "which node, and which command?" "$0 --help"
require_root
require_tools ip
require_up
settings_of_the_lab
require_daemon_name "$1"
inside "$@"
