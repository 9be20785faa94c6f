#!/usr/bin/env bash
# Runs meshctl against the lab's controller, or against one node.
#
# Usage: sudo ./meshctl.sh [--node NODE] ARGUMENT…
#
# As in: ./meshctl.sh explain node-c
#        ./meshctl.sh events --follow
#        ./meshctl.sh --node node-a status
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

name=controller
case ${1-} in
    '' | -h | --help)
        usage
        exit
        ;;
    --node)
        name=${2-}
        [[ -n $name ]] || die "which node?" "$0 --help"
        shift 2
        ;;
esac
require_root
require_tools ip
require_up
settings_of_the_lab
require_daemon_name "$name"
meshctl_of "$name" "$@"
