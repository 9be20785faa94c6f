#!/usr/bin/env bash
# Tells the whole story of meshd with the real thing: three nodes, epochs that come and go without a
# lost packet, a node that scores too low and is shut out, and its way back. Brings the lab up first
# if it is down. Fails at the first step that does not hold; leaves the lab up.
#
# Usage: sudo [SETTING=VALUE…] ./demo.sh [-h|--help]
#
# With SEGMENTS it tells another story: pings pass within each segment and not from one into another, and epochs of one
# cost another no packet.
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
    if [[ -n $SEGMENTS ]]; then
        each_segment_is_a_mesh
        nothing_crosses
        epochs_of_one_cost_another_nothing
        say
        say "That was the story of segments. The lab stays up; take it down with $LAB/down.sh."
        exit
    fi
    the_story_needs

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
}

the_story_needs() {
    ((NUM_NODES >= 3)) || die "the story needs three nodes" "$LAB/down.sh, then NUM_NODES=3 $0"
    low_score=$NODE_C_SCORE_MEAN
    less "$low_score" "$THRESHOLD" ||
        die "NODE_C_SCORE_MEAN=$low_score is not below THRESHOLD=$THRESHOLD" "node-c is the one who fails; let it"
}

everybody_is_in() {
    step 1 "Everybody is in"
    say "A new node is a member on probation, until its first benchmarks have been judged."
    if ! all_members; then
        say "Probation is over already, and a node that scored too low is out. Better scores bring it in first."
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
    start_ping node-a "$v4_b"
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
    if denied node-c; then
        say "node-c's benchmarks average $low_score, and a member needs $THRESHOLD: epoch $(epoch_id) is without it already."
    else
        if latest_score_is_enough node-c; then show "$LAB/set-score.sh" node-c "$low_score"; fi
        say "node-c's benchmarks average $low_score from now on, and a member needs $THRESHOLD: an epoch begins without it"
        say "as soon as they are judged."
    fi
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
    count_pings node-a node-b
    show "$LAB/meshctl.sh" status
    say
    say "That was the story. The lab stays up: look around with $LAB/status.sh and $LAB/logs.sh,"
    say "and take it down with $LAB/down.sh."
}

# --- steps of the story of segments ---------------------------------------------------------------

each_segment_is_a_mesh() {
    step 1 "Each segment is a mesh of its own"
    say "Each has epochs, keys and addresses of its own. A node has an interface in each of its segments, and one UDP port."
    expect "everybody is a member in each segment that it is in" "$patience" all_placed
    show "$LAB/status.sh"
    local segment
    for segment in $(segment_names); do
        expect "in $segment, every pair answers on IPv4 and IPv6" 60 all_reach_in "$segment"
    done
    local node
    for node in $(node_names); do
        if (($(segments_of "$node" | wc -l) > 1)); then
            show "$LAB/meshctl.sh" --node "$node" status
            break
        fi
    done
}

nothing_crosses() {
    step 2 "Nothing crosses from one segment into another"
    crossings=0
    for_each_place does_not_cross
    if ((crossings == 0)); then say "Every node is in every segment: there is nothing to cross into."; fi
}

# does_not_cross SEGMENT NODE: nobody outside the segment reaches NODE's addresses in it.
does_not_cross() {
    local segment=$1 to=$2 from v4 v6
    read -r v4 v6 < <(addresses_in "$segment" "$to")
    for from in $(node_names); do
        if segments_of "$from" | grep -xF -- "$segment" >/dev/null; then continue; fi
        ((++crossings))
        if reaches "$from" "$v4" || reaches "$from" "$v6"; then
            fail "$from, which is not in $segment, reaches $to there"
        fi
        passed "$from does not reach $to's $v4 and $v6 in $segment"
    done
}

epochs_of_one_cost_another_nothing() {
    step 3 "Epochs of one segment cost another no packet"
    local segment other='' nodes=() from to before
    for segment in $(segment_names | tac); do
        mapfile -t nodes < <(nodes_of "$segment")
        if ((${#nodes[@]} > 1)); then break; fi
    done
    for other in $(segment_names); do
        if [[ $other != "$segment" ]]; then break; fi
    done
    if ((${#nodes[@]} < 2)) || [[ $other == "$segment" ]]; then
        say "There are no two segments of which one has two nodes: nothing to show."
        return
    fi
    from=${nodes[0]} to=${nodes[1]}
    local v4
    read -r v4 _ < <(addresses_in "$segment" "$to")
    say "In $segment, $from pings $to five times a second, while $other begins one epoch after another."
    start_ping "$from" "$v4"
    local round
    for round in 1 2 3; do
        before=$(epoch_in "$other")
        show "$LAB/meshctl.sh" epoch rotate --segment "$other"
        expect "$other: an epoch after $before ($round of 3)" "$patience" epoch_in_is_after "$other" "$before"
    done
    expect "$from still pings $to" 5 ping_goes_on
    count_pings "$from" "$to"
}

# count_pings FROM TO: stops the pings; none may be lost.
count_pings() {
    stop_ping
    # A number that is missing below the highest one that was answered is a lost packet.
    local lost sent
    read -r sent lost < <(awk '
        match($0, /icmp_seq=[0-9]+/) && / time=/ { n = substr($0, RSTART + 9, RLENGTH - 9) + 0; if (!seen[n]++) got++; if (n > max) max = n }
        END { print max + 0, max - got }' "$ping_log")
    say "$1 sent $sent pings to $2 while epochs came and went; $lost were lost."
    ((sent > 0 && lost == 0)) || fail "pings were lost: $lost of $sent"
    passed "no packet was lost"
    rm -f -- "$ping_log"
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
# decided before the evidence arrived. Where epochs are short, it may have begun meanwhile.
rotate_until() {
    local what=$1 attempt
    shift
    if "$@"; then
        passed "$what (since epoch $(epoch_id) or before)"
        return
    fi
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

epoch_in() { ask ".segments[\"$1\"].epoch.id"; }
epoch_in_is_after() { (($(epoch_in "$1") > $2)); }

# Whether every node is a member in each of its segments.
all_placed() {
    [[ $(ask '[.nodes[].segments[] | select(.membership == "ALLOWED")] | length') == "$(places)" ]]
}

# --- pings ----------------------------------------------------------------------------------------

# start_ping FROM ADDRESS: goes on until it is stopped.
start_ping() {
    say "$ ip netns exec $NS-$1 ping -i 0.2 $2 &"
    ping_log=$(mktemp)
    # The limit of an hour is for a demo that is killed and cannot stop it.
    # Not through a function: the pid has to be that of ping itself.
    ip netns exec "$NS-$1" ping -n -i 0.2 -w 3600 "$2" >"$ping_log" 2>&1 &
    ping_pid=$!
}

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

# all_reach_in SEGMENT: each of its nodes reaches each other one on both families.
all_reach_in() {
    local from to v4 v6
    for to in $(nodes_of "$1"); do
        read -r v4 v6 < <(addresses_in "$1" "$to") || return 1
        for from in $(nodes_of "$1"); do
            if [[ $from == "$to" ]]; then continue; fi
            reaches "$from" "$v4" && reaches "$from" "$v6" || return 1
        done
    done
}

# addresses_in SEGMENT NODE
addresses_in() { of "$2" ".segments[\"$1\"] | \"\\(.v4) \\(.v6)\""; }

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
