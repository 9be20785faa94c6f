#!/usr/bin/env bash
# Tells the whole story of meshd with the real thing: three nodes, epochs that come and go without a
# lost packet, a node that scores too low and is shut out, and its way back. Brings the lab up first
# if it is down. Fails at the first step that does not hold; leaves the lab up.
#
# Usage: sudo [SETTING=VALUE…] ./demo.sh [-h|--help]
#
# The settings are those of up.sh; try EPOCH_SECONDS=10 for a short demo. A lab that is up with other
# settings is taken down first.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

readonly GOOD_SCORE=0.95
# An epoch of this many seconds or fewer is waited for; a longer one is cut short.
readonly SHORT_EPOCH=15

main() {
    case ${1-} in
        '') ;;
        -h | --help) usage && exit ;;
        *) die "unknown argument: $1" "$0 --help" ;;
    esac
    require_root
    require_tools ip ping jq awk
    bring_up
    patience=$((2 * EPOCH_SECONDS + 30))

    everybody_is_in
    an_epoch_ends
    a_node_is_shut_out
    the_node_comes_back
    the_balance
}

# --- steps ----------------------------------------------------------------------------------------

bring_up() {
    if is_up && [[ -n $(settings_that_differ) ]]; then "$LAB/down.sh"; fi
    "$LAB/up.sh"
    settings_of_the_lab
    ((NUM_NODES >= 3)) || die "the story needs three nodes" "$LAB/down.sh, then NUM_NODES=3 $0"
    low_score=$NODE_C_SCORE_MEAN
    less "$low_score" "$THRESHOLD" ||
        die "NODE_C_SCORE_MEAN=$low_score is not below THRESHOLD=$THRESHOLD" "node-c is the one who fails; let it"
}

everybody_is_in() {
    step 1 "Everybody is in"
    say "A new node is a member on probation, until its first benchmarks have been judged."
    if ! all_members; then
        say "This lab is past that: node-c is out already. Better scores bring it in first."
        raise_score_of_node_c
        rotate
    fi
    expect "all nodes are ALLOWED" "$patience" all_members
    expect "every pair answers on IPv4 and IPv6" 60 is_ready
    show "$LAB/status.sh"
    v4_b=$(of node-b .v4)
    expect "node-a reaches node-b and node-c, and both reach it" 30 \
        all_reach node-a node-b node-b node-a node-a node-c node-c node-a
    say
    say "From here on, node-a pings node-b five times a second. No packet may be lost, come what may."
    say "$ ip netns exec $NS-node-a ping -i 0.2 $v4_b &"
    ping_log=$(mktemp)
    # The limit of an hour is for a demo that is killed and cannot stop it.
    # Not through a function: the pid has to be that of ping itself.
    ip netns exec "$NS-node-a" ping -n -i 0.2 -w 3600 "$v4_b" >"$ping_log" 2>&1 &
    ping_pid=$!
}

an_epoch_ends() {
    step 2 "An epoch ends"
    say "Each epoch has a secret of its own, from which every pair derives the preshared key of its tunnel."
    local before
    before=$(epoch_id)
    rotate
    expect "epoch $before is over (now $(epoch_id))" 10 epoch_is_after "$before"
    expect "node-a and node-b hold the new keys" 15 hold_keys node-a node-b
    show "$LAB/meshctl.sh" epoch show
}

a_node_is_shut_out() {
    step 3 "A node that scores too low is shut out"
    say "node-c's benchmarks average $low_score; a member needs $THRESHOLD. The next epoch begins without it."
    if latest_score_is_enough node-c; then show "$LAB/set-score.sh" node-c "$low_score"; fi
    expect "its evidence has arrived, and is too low" "$patience" latest_score_is_low node-c
    rotate_until "node-c is DENIED" denied node-c
    expect "the reason is: score below threshold" 5 field_is node-c .reason "score below threshold"
    expect "its state is QUARANTINED" 5 field_is node-c .state QUARANTINED
    expect "its control connection stays up, so that it can prove itself again" 10 field_is node-c .control connected
    show "$LAB/meshctl.sh" explain node-c
    expect "nothing passes between node-c and the others, on IPv4 or IPv6" 20 \
        none_reach node-a node-c node-b node-c node-c node-a node-c node-b
    expect "node-a and node-b are as good as ever" 20 all_reach node-a node-b node-b node-a
}

the_node_comes_back() {
    step 4 "It behaves, and comes back"
    raise_score_of_node_c
    rotate_until "node-c is ALLOWED again" allowed node-c
    expect "node-c and the others reach each other again, on IPv4 and IPv6" 30 \
        all_reach node-a node-c node-c node-a node-b node-c node-c node-b
}

the_balance() {
    step 5 "The balance"
    expect "node-a still pings node-b" 5 ping_goes_on
    stop_ping
    # A number that is missing below the highest one that was answered is a lost packet.
    local lost sent
    read -r sent lost < <(awk '
        match($0, /icmp_seq=[0-9]+/) && / time=/ { n = substr($0, RSTART + 9, RLENGTH - 9) + 0; if (!seen[n]++) got++; if (n > max) max = n }
        END { print max + 0, max - got }' "$ping_log")
    say "node-a sent $sent pings to node-b while epochs came and went; $lost were lost."
    ((sent > 0 && lost == 0)) || fail "pings were lost: $lost of $sent"
    passed "no packet was lost"
    rm -f -- "$ping_log"
    show "$LAB/meshctl.sh" status
    say
    say "That was the story. The lab stays up: look around with $LAB/status.sh and $LAB/logs.sh,"
    say "and take it down with $LAB/down.sh."
}

# --- telling --------------------------------------------------------------------------------------

step() { printf '\n== %s. %s\n\n' "$1" "$2"; }
passed() { say "  ok    $1"; }

fail() {
    say "  FAIL  $1"
    if [[ -n ${ping_log-} && -s ${ping_log-} ]]; then tail -n 3 -- "$ping_log"; fi
    "$LAB/status.sh" || true
    die "step does not hold: $1" "$LAB/logs.sh --no-follow -n 50; $LAB/meshctl.sh events"
}

# expect WHAT SECONDS COMMAND…
expect() {
    local what=$1
    shift
    if wait_until "$@"; then passed "$what"; else fail "$what"; fi
}

# show COMMAND…: prints the command, then runs it.
show() {
    printf '\n$ %s\n' "${*//"$REPO/"/}"
    "$@"
    say
}

# --- epochs ---------------------------------------------------------------------------------------

# Waits for the next epoch, or begins it where that would take long.
rotate() {
    local before
    before=$(epoch_id)
    if ((EPOCH_SECONDS <= SHORT_EPOCH)); then
        say "(waiting for epoch $before to end, at most $EPOCH_SECONDS s)"
    else
        show "$LAB/rotate-now.sh"
    fi
    wait_until "$patience" epoch_is_after "$before" || fail "an epoch after $before"
}

# rotate_until WHAT COMMAND…: a decision takes effect with an epoch; the first one may have been
# decided before the evidence arrived.
rotate_until() {
    local what=$1 attempt
    shift
    for attempt in 1 2 3 4; do
        rotate
        if wait_until 5 "$@"; then
            passed "$what (epoch $(epoch_id))"
            return
        fi
        if ((attempt < 4)); then say "(that epoch was decided before the evidence came; another one)"; fi
    done
    expect "$what" "$patience" "$@"
}

epoch_is_after() { (($(epoch_id) > $1)); }

# --- questions ------------------------------------------------------------------------------------

field_is() { [[ $(of "$1" "$2") == "$3" ]]; }
allowed() { field_is "$1" .membership ALLOWED; }
denied() { field_is "$1" .membership DENIED; }
all_members() { [[ $(ask '[.nodes[].membership == "ALLOWED"] | all') == true ]]; }

hold_keys() {
    local node
    for node in "$@"; do field_is "$node" .psk valid || return 1; done
}

less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

latest_score() { of "$1" '.last_benchmark.overall // empty'; }

latest_score_is_enough() {
    local score
    score=$(latest_score "$1")
    [[ -n $score ]] && ! less "$score" "$THRESHOLD"
}

latest_score_is_low() {
    local score
    score=$(latest_score "$1")
    [[ -n $score ]] && less "$score" "$THRESHOLD"
}

raise_score_of_node_c() {
    show "$LAB/set-score.sh" node-c "$GOOD_SCORE"
    expect "better evidence has arrived" "$patience" latest_score_is_enough node-c
}

# --- pings ----------------------------------------------------------------------------------------

# reaches FROM ADDRESS
reaches() { inside "$1" ping -n -c 1 -W 1 "$2" >/dev/null 2>&1; }

# all_reach FROM TO [FROM TO…]: each of these pairs answers on both families.
all_reach() {
    local v4 v6
    while (($# > 0)); do
        read -r v4 v6 < <(addresses_of "$2") || return 1
        reaches "$1" "$v4" && reaches "$1" "$v6" || return 1
        shift 2
    done
}

# none_reach FROM TO [FROM TO…]: none of them answers on either family.
none_reach() {
    local v4 v6
    while (($# > 0)); do
        read -r v4 v6 < <(addresses_of "$2") || return 1
        if reaches "$1" "$v4" || reaches "$1" "$v6"; then return 1; fi
        shift 2
    done
}

addresses_of() { of "$1" '| "\(.v4) \(.v6)"'; }

# Whether a new answer comes within two seconds.
ping_goes_on() {
    local before
    before=$(grep -c ' time=' -- "$ping_log" || true)
    wait_until 2 has_more_answers "$before"
}

has_more_answers() { (($(grep -c ' time=' -- "$ping_log") > $1)); }

stop_ping() {
    if [[ -n ${ping_pid-} ]]; then
        # Not INT, which a script's background children ignore.
        kill -TERM "$ping_pid" 2>/dev/null || true
        wait "$ping_pid" 2>/dev/null || true
        ping_pid=
    fi
}

trap stop_ping EXIT
main "$@"
