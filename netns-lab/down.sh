#!/usr/bin/env bash
# Takes the lab down: stops its daemons and deletes its namespaces, also after an up.sh that failed
# halfway. Logs and state stay in artifacts/ to be looked at; the next up.sh begins a new mesh.
#
# Usage: sudo ./down.sh [--purge] [--quiet] [-h|--help]
#
#   --purge  removes artifacts/ too
#   --quiet  says nothing if there is nothing to do
#
# Only daemons of this lab are stopped: a process has to be meshd with a configuration in
# artifacts/config. Other processes in a namespace, as a shell of exec.sh, are named and left alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

main() {
    local purge=no quiet=no
    while (($# > 0)); do
        case $1 in
            --purge) purge=yes ;;
            --quiet) quiet=yes ;;
            -h | --help) usage && exit ;;
            *) die "unknown argument: $1" "$0 --help" ;;
        esac
        shift
    done
    require_root
    require_tools ip

    stop_daemons
    warn_of_others
    delete_namespaces
    rm -rf -- "$SOCKETS" "$ENV_FILE"
    if [[ $purge == yes ]]; then rm -rf -- "$ARTIFACTS"; fi
    if [[ $quiet == no ]]; then say "The lab is down."; fi
}

# Pids with names of all daemons of this lab: those with pid files, and any that lost theirs.
lab_daemons() {
    local file ns pid name
    {
        for file in "$PIDS"/*.pid; do
            if [[ -e $file ]]; then
                name=$(basename -- "$file" .pid)
                if pid=$(pid_of "$name"); then say "$pid $name"; fi
            fi
        done
        while read -r ns; do
            name=${ns#"$NS-"}
            while read -r pid; do
                if is_ours "$pid" "$name"; then say "$pid $name"; fi
            done < <(ip netns pids "$ns" 2>/dev/null)
        done < <(namespaces)
    } | sort -u
}

namespaces() {
    local path
    for path in /run/netns/"$NS"-*; do
        if [[ -e $path ]]; then basename -- "$path"; fi
    done
}

# Nodes and controller at once: TERM, up to ten seconds, KILL.
stop_daemons() {
    local daemons pid name deadline=$((SECONDS + 10))
    daemons=$(lab_daemons)
    if [[ -n $daemons ]]; then
        while read -r pid name; do kill -TERM "$pid" 2>/dev/null || true; done <<<"$daemons"
        while [[ -n $(still_running "$daemons") ]] && ((SECONDS < deadline)); do sleep 0.1; done
        while read -r pid name; do
            if [[ -n $pid ]]; then
                warn "$name (pid $pid) did not stop within 10 s; killing it"
                kill -KILL "$pid" 2>/dev/null || true
            fi
        done < <(still_running "$daemons")
        deadline=$((SECONDS + 5))
        while [[ -n $(still_running "$daemons") ]] && ((SECONDS < deadline)); do sleep 0.1; done
    fi
    rm -f -- "$PIDS"/*.pid
}

still_running() {
    local pid name
    while read -r pid name; do
        if is_ours "$pid" "$name"; then say "$pid $name"; fi
    done <<<"$1"
}

warn_of_others() {
    local ns pid
    while read -r ns; do
        while read -r pid; do
            warn "process $pid ($(cat "/proc/$pid/comm" 2>/dev/null)) keeps what was $ns alive until it ends"
        done < <(ip netns pids "$ns" 2>/dev/null)
    done < <(namespaces)
}

# A namespace takes its interfaces with it.
delete_namespaces() {
    local ns
    while read -r ns; do
        ip netns del "$ns" || die "cannot delete $ns" "ip netns pids $ns"
    done < <(namespaces)
}

main "$@"
