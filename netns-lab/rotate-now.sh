#!/usr/bin/env bash
# Begins the next epoch without waiting for the schedule.
#
# Usage: sudo ./rotate-now.sh [--now] [--confirm-removals] [-h|--help]
#
#   --now               also without the lead time in which peers shake hands ahead
#   --confirm-removals  removes the nodes whose removal the sanity floor holds back
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

for argument in "$@"; do
    case $argument in
        --now | --confirm-removals) ;;
        -h | --help) usage && exit ;;
        *) die "unknown argument: $argument" "$0 --help" ;;
    esac
done
require_root
require_up
meshctl_of controller epoch rotate "$@"
