# shellcheck shell=bash
# What is measured. Each scenario leaves its raw output in the folder $RUN; figures.py makes numbers of
# it. Sourced by `run`.
#
# shellcheck disable=SC2154  # run and lab.bash set what is used here

readonly IPERF_PORT=5201
readonly TXQUEUELEN=4000          # of all tunnel interfaces where UDP is measured
readonly IDLE_PINGS=200

# measure RECORDS SCENARIO IMPL ROUND OUTER [SENDERS]: appends one record, also of a failure.
measure() {
    local records=$1 scenario=$2 impl=$3 round=$4 outer=$5 senders=${6:-1}
    RUN=$WORK/runs/$scenario.$round.$impl
    mkdir -p -- "$RUN"
    # What ended since the last measurement gets another start; the record of that one says so.
    if [[ -z ${TROUBLE[$impl]-} ]] && ! all_alive "$impl"; then
        take_down "$impl"
        bring_up "$impl" "$outer" "$senders"
    fi
    if [[ -n ${TROUBLE[$impl]-} ]]; then
        say "${TROUBLE[$impl]}" >"$RUN/failed"
    elif ! wait_until 5 answers "$impl" 1; then
        say "no ping through the tunnel before the run" >"$RUN/failed"
    else
        run_scenario "$scenario" "$impl"
    fi
    printf '%-3s %-15s %-15s ' "$round" "$scenario" "$impl"
    python3 "$HERE/figures.py" "$scenario" "$impl" "$round" "$RUN" "$records"
}

run_scenario() {
    local scenario=$1 impl=$2
    epoch_of "$impl" >"$RUN/epoch.before" || true
    case $scenario in
        tcp1 | tcp_v6_outside) stream "$impl" 4 ;;
        tcp8) stream "$impl" 4 --parallel 8 ;;
        tcp_bidir) stream "$impl" 4 --bidir ;;
        tcp_v6_inside) stream "$impl" 6 ;;
        udp64) small_packets "$impl" ;;
        rtt_idle) idle "$impl" ;;
        rtt_loaded) loaded "$impl" ;;
        scaling_*) fan_in "$impl" "${scenario#scaling_}" ;;
    esac
    epoch_of "$impl" >"$RUN/epoch.after" || true
    if ! all_alive "$impl"; then
        say "${TROUBLE[$impl]}" >"$RUN/failed"
        # The next measurement finds it dead and starts it anew.
        unset "TROUBLE[$impl]"
    fi
}

# --- scenarios ------------------------------------------------------------------------------------

# stream IMPL FAMILY ARG…: iperf3 from host 1 to host 0.
stream() {
    local impl=$1 family=$2
    shift 2
    serve $IPERF_PORT || return 0
    snapshot before
    send "$impl" "$family" 1 $IPERF_PORT "$@"
    await_children
    snapshot after
}

small_packets() {
    local impl=$1 host before=()
    for host in 0 1; do
        before+=("$(queue_length "$impl" $host)")
        ip -n "$NS-$host" link set "$(device "$impl" $host)" txqueuelen $TXQUEUELEN
    done
    stream "$impl" 4 --udp --length 64 --bitrate 0 --window 4M
    for host in 0 1; do
        ip -n "$NS-$host" link set "$(device "$impl" $host)" txqueuelen "${before[host]}" || true
    done
}

queue_length() { ip -n "$NS-$2" -j link show "$(device "$1" "$2")" | jq '.[0].txqlen'; }

idle() {
    snapshot before
    pings "$1" $IDLE_PINGS
    snapshot after
}

# loaded IMPL: pings while one stream runs, from the end of its first second on.
loaded() {
    local impl=$1
    serve $IPERF_PORT || return 0
    snapshot before
    send "$impl" 4 1 $IPERF_PORT
    sleep 1
    pings "$impl" $((SECONDS_PER_RUN * 100 - 50))
    await_children
    snapshot after
}

# pings IMPL COUNT: one in 10 ms.
pings() {
    bounded $(($2 / 100 + 10)) 1 ping -n -i 0.01 -c "$2" -W 1 "${INSIDE4[$1/0]}" >"$RUN/ping" 2>&1 &
    local pid=$!
    CHILDREN+=("$pid")
    wait "$pid" || true
}

# fan_in IMPL PEERS: one stream from each of the first PEERS peers to the hub at once.
fan_in() {
    local impl=$1 peers=$2 host
    for ((host = 1; host <= peers; host++)); do
        wait_until 5 answers "$impl" $host || { say "no ping from host $host" >"$RUN/failed" && return 0; }
        serve $((IPERF_PORT + host)) || return 0
    done
    snapshot before
    for ((host = 1; host <= peers; host++)); do send "$impl" 4 $host $((IPERF_PORT + host)); done
    await_children
    snapshot after
}

# --- tools ----------------------------------------------------------------------------------------

# serve PORT: an iperf3 on host 0 for one test.
serve() {
    bounded $((SECONDS_PER_RUN + 25)) 0 iperf3 --server --one-off --json --port "$1" &>"$RUN/server.$1" &
    CHILDREN+=("$!")
    if ! wait_until 5 listens "$1"; then
        say "iperf3's server does not listen" >"$RUN/failed"
        stop "${CHILDREN[@]}"
        CHILDREN=()
        return 1
    fi
}

listens() { [[ -n $(on 0 ss -Hltn "sport = :$1") ]]; }

# send IMPL FAMILY HOST PORT ARG…: an iperf3 on HOST, in the background.
send() {
    local family=$2 host=$3 port=$4 to
    if [[ $family == 4 ]]; then to=${INSIDE4[$1/0]}; else to=${INSIDE6[$1/0]}; fi
    shift 4
    local arguments=(--client "$to" --port "$port" --time "$SECONDS_PER_RUN" --omit 1 --json --get-server-output "$@")
    if [[ -n $CONGESTION && " $* " != *' --udp '* ]]; then arguments+=(--congestion "$CONGESTION"); fi
    bounded $((SECONDS_PER_RUN + 15)) "$host" iperf3 "${arguments[@]}" >"$RUN/client.$host" 2>"$RUN/client.$host.err" &
    CHILDREN+=("$!")
}

# bounded SECONDS HOST COMMAND…: replaces a background shell, so that its process is that of timeout.
bounded() {
    local seconds=$1 host=$2
    shift 2
    exec timeout --kill-after 2 "$seconds" ip netns exec "$NS-$host" "$@"
}

# Waits for clients and servers; a server whose client failed would wait for ever.
await_children() {
    local pid
    for pid in "${CHILDREN[@]}"; do
        if ! is_server "$pid"; then wait "$pid" || true; fi
    done
    wait_until 1 servers_are_gone || true
    stop "${CHILDREN[@]}"
    CHILDREN=()
}

is_server() {
    local words=()
    mapfile -d '' -t words 2>/dev/null <"/proc/$1/cmdline" || return 1
    [[ " ${words[*]} " == *' --server '* ]]
}

servers_are_gone() {
    local pid
    for pid in "${CHILDREN[@]}"; do if is_alive "$pid"; then return 1; fi; done
}

# snapshot NAME: processor time of every daemon and of the machine, in ticks. Nothing here forks.
snapshot() {
    local key stat words
    {
        printf 'time %s\n' "$EPOCHREALTIME"
        for key in "${!PIDS[@]}"; do
            if { read -r stat <"/proc/${PIDS[$key]}/stat"; } 2>/dev/null; then
                # From the state on, the third field; the name before it may contain anything.
                read -ra words <<<"${stat##*') '}"
                printf 'daemon %s %s\n' "$key" $((words[11] + words[12]))
            fi
        done
        read -ra words </proc/stat
        printf 'machine %s %s\n' $((words[1] + words[2] + words[3] + words[6] + words[7])) "${words[8]}"
    } >"$RUN/$1"
}
