#!/usr/bin/env bash
# Runs a command in a daemon's network namespace. In a node's, names of nodes resolve, and `wg` finds its interface:
# files of the lab are in the places of the machine's, for this command alone.
#
# Usage: sudo ./exec.sh NODE|controller COMMAND [ARGUMENT…]
#
# As in: ./exec.sh node-a ping -c 3 node-b
#        ./exec.sh node-a wg show
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
name=$1
shift
if [[ $name == controller ]]; then
    inside "$name" "$@"
    exit
fi
printf 'nameserver 127.0.0.1\nsearch mesh.internal\n' >"$SOCKETS/resolv.conf"
printf 'hosts: files dns\n' >"$SOCKETS/nsswitch.conf"
# `ip netns exec` gives the command mounts of its own, which go with it.
# shellcheck disable=SC2016  # it is the inner shell that expands
inside "$name" bash -c '
    over() { mount --bind "$1" "$2" || echo "$2 stays that of the machine" >&2; }
    over "$1/resolv.conf" /etc/resolv.conf
    over "$1/nsswitch.conf" /etc/nsswitch.conf
    mkdir -p /run/wireguard
    if [ -d "$2" ]; then over "$2" /run/wireguard; fi
    shift 2
    exec "$@"' bash "$SOCKETS" "$SOCKETS/$name.wireguard" "$@"
