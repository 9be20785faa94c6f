#!/usr/bin/env bash
# Changes the mean of a node's mock benchmark: the node behaves better, or worse, from now on. The
# membership follows when evidence and the next epoch have caught up.
#
# Usage: sudo ./set-score.sh NODE MEAN
#
# As in: ./set-score.sh node-c 0.95
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

case ${1-} in
    -h | --help) usage && exit ;;
esac
(($# == 2)) || die "which node, and which mean?" "$0 --help"
require_root
require_tools ip
require_up
settings_of_the_lab
require_daemon_name "$1"
meshctl_of "$1" score set "$2"
