#!/usr/bin/env bash
# Follows the daemons' logs, each line behind its daemon's name. Ends with Ctrl-C.
#
# Usage: ./logs.sh [-n LINES] [--no-follow] [NAME…] [-h|--help]
#
#   NAME         controller, node-a, …; by default all
#   -n LINES     old lines to begin with, of each log (default 10)
#   --no-follow  ends after the old lines
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

lines=10 follow=(-F) names=()
while (($# > 0)); do
    case $1 in
        -n)
            lines=${2-}
            [[ $lines =~ ^[0-9]+$ ]] || die "-n needs a number" "$0 --help"
            shift
            ;;
        --no-follow) follow=() ;;
        -h | --help) usage && exit ;;
        -*) die "unknown argument: $1" "$0 --help" ;;
        *) names+=("$1") ;;
    esac
    shift
done

files=()
if ((${#names[@]} == 0)); then
    for file in "$LOGS"/*.log; do
        if [[ -e $file ]]; then files+=("$file"); fi
    done
    ((${#files[@]} > 0)) || die "there are no logs" "sudo $LAB/up.sh"
else
    for name in "${names[@]}"; do
        [[ -e $LOGS/$name.log ]] || die "there is no log of $name" "ls $LOGS"
        files+=("$LOGS/$name.log")
    done
fi

# With -v, tail names the file whenever it turns to another one.
name='' header='^==> .*/([^/]+)\.log <==$'
tail -q -v -n "$lines" "${follow[@]}" -- "${files[@]}" 2>/dev/null |
    while IFS= read -r line; do
        if [[ $line =~ $header ]]; then
            name=${BASH_REMATCH[1]}
        elif [[ -n $line ]]; then
            printf '%-10s | %s\n' "$name" "$line"
        fi
    done
