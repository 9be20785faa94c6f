# shellcheck shell=bash
# The hosts, their link, and the implementations that run on them. Sourced by `run`, which sets what
# is read here; it changes nothing by being sourced.
#
# Host 0 receives (or is the hub), hosts 1 and up send, host c has the controllers. Each is a network
# namespace with one end of a veth pair; the other ends are ports of one bridge, for everybody alike.
#
# shellcheck disable=SC2034,SC2154  # the scripts use what is set here and set what is used here

readonly NS=meshcmp-$$            # every namespace is called meshcmp-PID-…
readonly MTU=1420
readonly LEAST_SOCKET_BUFFER=4194304
WORK=''                           # folder with everything of this run
declare -A PIDS=()                # daemons, IMPL/HOST → process
declare -A TROUBLE=()             # IMPL → why it could not be started
declare -A NUMBER=()              # IMPL → its number, from 1: keeps addresses and ports apart
declare -A INSIDE4=() INSIDE6=()  # IMPL/HOST → address in the tunnel
declare -A SYSCTLS=()             # what was changed → its value before
CHILDREN=()                       # processes of the measurement that runs

# --- words ----------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die ERROR [HINT]
die() {
    printf 'error: %s\n' "$1" >&2
    if [[ -n ${2-} ]]; then printf 'hint: %s\n' "$2" >&2; fi
    exit 1
}

# Prints the comment at the top of the calling script.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# wait_until SECONDS COMMAND…: succeeds as soon as the command does, fails after SECONDS.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" &>/dev/null; do
        if ((SECONDS >= deadline)); then return 1; fi
        sleep 0.1
    done
}

# --- beginning and end ----------------------------------------------------------------------------

begin_lab() {
    trap end_lab EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d /tmp/meshcmp.XXXXXX)
    at_least net.core.rmem_max $LEAST_SOCKET_BUFFER
    at_least net.core.wmem_max $LEAST_SOCKET_BUFFER
    if compgen -G '/run/netns/meshcmp-*' >/dev/null; then
        warn "there are namespaces of another run, or of one that was killed: $(echo /run/netns/meshcmp-*)"
    fi
    namespace net
    ip -n "$NS-net" link add br0 type bridge forward_delay 0 mcast_snooping 0
    ip -n "$NS-net" link set br0 up
    attach c
    attach 0
    attach 1
    local i=0 impl
    for impl in "${IMPLS[@]}"; do NUMBER[$impl]=$((i += 1)); done
    if [[ -z ${NUMBER[meshd]-} ]]; then NUMBER[meshd]=$((i + 1)); fi
}

# at_least SYSCTL VALUE: iperf3's own sockets need it; the value before comes back at the end.
at_least() {
    local before
    before=$(sysctl -n "$1")
    if ((before < $2)); then
        say "Raising $1 from $before to $2 until the end."
        SYSCTLS[$1]=$before
        sysctl -qw "$1=$2"
    fi
}

# Runs at every exit, also after half a start: ends what this script started, by process, and
# deletes what it made.
end_lab() {
    local code=$? key
    trap '' HUP INT TERM
    stop "${CHILDREN[@]}"
    stop "${PIDS[@]}"
    for key in "${!PIDS[@]}"; do remove_socket "$key"; done
    local path
    for path in /run/netns/"$NS"-*; do
        if [[ -e $path ]]; then ip netns del "${path##*/}" || true; fi
    done
    for key in "${!SYSCTLS[@]}"; do sysctl -qw "$key=${SYSCTLS[$key]}" || true; done
    if [[ -n ${KEEP-} ]]; then say "Logs and raw output are in $WORK."; else rm -rf -- "$WORK"; fi
    exit "$code"
}

# stop PID…: TERM to all, five seconds, then KILL.
stop() {
    local pid deadline=$((SECONDS + 5))
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while is_alive "$pid" && ((SECONDS < deadline)); do sleep 0.02; done
        if is_alive "$pid"; then kill -KILL "$pid" 2>/dev/null || true; fi
        wait "$pid" 2>/dev/null || true
    done
}

# Only children of this script are asked about; one that ended is nobody else yet.
is_alive() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    [[ $stat != *') Z '* ]]
}

# --- network --------------------------------------------------------------------------------------

namespace() {
    ip netns add "$NS-$1" || die "cannot make a network namespace" \
        "a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)"
    ip -n "$NS-$1" link set lo up
}

# attach HOST: gives HOST a namespace with an eth0 whose other end is in the bridge.
attach() {
    if [[ -e /run/netns/$NS-$1 ]]; then return; fi
    namespace "$1"
    ip link add name eth0 mtu 1500 netns "$NS-$1" type veth peer name "port-$1" mtu 1500 netns "$NS-net"
    ip -n "$NS-net" link set "port-$1" master br0 up
    ip -n "$NS-$1" addr add "$(underlay 4 "$1")/24" dev eth0
    ip -n "$NS-$1" addr add "$(underlay 6 "$1")/64" dev eth0 nodad
    ip -n "$NS-$1" link set eth0 up
}

# underlay FAMILY HOST: 198.18.0.0/15 is set aside for tests (RFC 2544), fd00::/8 for everybody.
underlay() {
    local last
    if [[ $2 == c ]]; then last=1; else last=$(($2 + 10)); fi
    if [[ $1 == 4 ]]; then say "198.18.0.$last"; else say "fd00:6d65:7368::$last"; fi
}

# endpoint FAMILY HOST PORT
endpoint() {
    if [[ $1 == 4 ]]; then say "$(underlay 4 "$2"):$3"; else say "[$(underlay 6 "$2")]:$3"; fi
}

# on HOST COMMAND…
on() {
    local host=$1
    shift
    ip netns exec "$NS-$host" "$@"
}

# device IMPL HOST: the sockets of WireGuard programs have no namespace in their names, so this
# script's process is in the name.
device() { say "mc$$x${NUMBER[$1]}h$2"; }

port() { say "$((51820 + ${NUMBER[$1]}))"; }

controller_port() { say "$((7443 + ${NUMBER[$1]}))"; }

# --- implementations ------------------------------------------------------------------------------

# bring_up IMPL OUTER SENDERS: leaves a reason in TROUBLE if it fails.
bring_up() {
    local impl=$1
    unset "TROUBLE[$impl]"
    TROUBLE[$impl]='it did not start'
    case $impl in
        meshd*) start_meshd "$@" || true ;;
        *) start_stock "$@" || true ;;
    esac
    if [[ -n ${TROUBLE[$impl]-} ]]; then
        warn "$impl: ${TROUBLE[$impl]}"
        take_down "$impl"
    fi
}

# trouble IMPL REASON [HOST]: remembers the reason, with the last word of the daemon; always fails.
trouble() {
    local last=''
    if [[ -n ${3-} ]]; then
        # A line that begins with a blank goes on with the one before it.
        last=$(sed 's/\x1b\[[0-9;]*m//g; s/|/ /g' "$WORK/$1.$3.log" 2>/dev/null | grep '^[^[:space:]]' | tail -n 1) || true
    fi
    TROUBLE[$1]=$2${last:+; it said: $last}
    return 1
}

# await IMPL HOST SECONDS REASON COMMAND…: until the command succeeds, a daemon ends, or it is too late.
await() {
    local impl=$1 host=$2 seconds=$3 reason=$4 deadline=$((SECONDS + $3))
    shift 4
    until "$@" &>/dev/null; do
        all_alive "$impl" || return 1
        if ((SECONDS >= deadline)); then trouble "$impl" "$reason within $seconds s" "$host" || return 1; fi
        sleep 0.1
    done
}

# started IMPL: nothing is wrong with it any more.
started() {
    unset "TROUBLE[$1]"
    return 0
}

take_down() {
    local key pids=()
    for key in "${!PIDS[@]}"; do
        if [[ $key == "$1/"* ]]; then pids+=("${PIDS[$key]}"); fi
    done
    stop "${pids[@]}"
    for key in "${!PIDS[@]}"; do
        if [[ $key == "$1/"* ]]; then
            remove_socket "$key"
            unset "PIDS[$key]"
        fi
    done
    if [[ $1 == kernel ]]; then
        ip -n "$NS-0" link del "$(device kernel 0)" 2>/dev/null || true
        ip -n "$NS-1" link del "$(device kernel 1)" 2>/dev/null || true
    fi
    rm -rf -- "${WORK:?}/$1"
}

remove_socket() { rm -f -- "/var/run/wireguard/$(device "${1%/*}" "${1#*/}").sock"; }

# all_alive IMPL: whether every daemon of it still runs; says which does not.
all_alive() {
    local key code=0
    for key in "${!PIDS[@]}"; do
        if [[ $key == "$1/"* ]] && ! is_alive "${PIDS[$key]}"; then
            wait "${PIDS[$key]}" 2>/dev/null || code=$?
            trouble "$1" "the daemon on host ${key#*/} ended with exit code $code" "${key#*/}" || return 1
        fi
    done
}

# launch IMPL HOST COMMAND…: a daemon on HOST, detached from this terminal.
launch() {
    local impl=$1 host=$2
    shift 2
    # A background child of a script leads no process group, so that neither setsid nor ip forks and
    # the process is the daemon's own.
    setsid ip netns exec "$NS-$host" "$@" </dev/null >>"$WORK/$impl.$host.log" 2>&1 &
    PIDS[$impl/$host]=$!
}

# --- WireGuard programs ---------------------------------------------------------------------------

kernel_has_wireguard() {
    ip -n "$NS-0" link add mcprobe type wireguard 2>&1 && ip -n "$NS-0" link del mcprobe
}

# start_stock IMPL OUTER
start_stock() {
    local impl=$1 outer=$2 host dev
    for host in 0 1; do
        dev=$(device "$impl" $host)
        case $impl in
            gotatun) launch "$impl" $host "$PEERS/gotatun" --foreground --disable-drop-privileges "$dev" ;;
            boringtun-cli) launch "$impl" $host "$PEERS/boringtun-cli" --foreground --disable-drop-privileges "$dev" ;;
            wireguard-go) launch "$impl" $host "$WIREGUARD_GO" --foreground "$dev" ;;
            kernel) ip -n "$NS-$host" link add "$dev" type wireguard || return 1 ;;
        esac
        await "$impl" $host 10 "no answer to wg show" on $host wg show "$dev" || return 1
    done
    configure_stock "$impl" "$outer" || return 1
    await "$impl" 0 10 "no ping through the tunnel" answers "$impl" 1 || return 1
    started "$impl"
}

configure_stock() {
    local impl=$1 outer=$2 n=${NUMBER[$1]} dir=$WORK/$1 host other dev
    (umask 077 && mkdir -p "$dir" && wg genkey >"$dir/0.key" && wg genkey >"$dir/1.key" && wg genpsk >"$dir/psk") || return 1
    for host in 0 1; do
        other=$((1 - host))
        dev=$(device "$impl" $host)
        INSIDE4[$impl/$host]=10.$((100 + n)).0.$((host + 1))
        INSIDE6[$impl/$host]=fd77:6d65:$n::$((host + 1))
        (umask 077 && cat >"$dir/$host.conf") <<CONF
[Interface]
PrivateKey = $(<"$dir/$host.key")
ListenPort = $(port "$impl")
[Peer]
PublicKey = $(wg pubkey <"$dir/$other.key")
PresharedKey = $(<"$dir/psk")
AllowedIPs = 10.$((100 + n)).0.$((other + 1))/32, fd77:6d65:$n::$((other + 1))/128
Endpoint = $(endpoint "$outer" $other "$(port "$impl")")
CONF
        on $host wg setconf "$dev" "$dir/$host.conf" || trouble "$impl" "wg setconf failed" $host || return 1
        ip -n "$NS-$host" addr add "${INSIDE4[$impl/$host]}/16" dev "$dev" || return 1
        ip -n "$NS-$host" addr add "${INSIDE6[$impl/$host]}/64" dev "$dev" nodad || return 1
        ip -n "$NS-$host" link set "$dev" mtu $MTU up || return 1
    done
}

# --- meshd ----------------------------------------------------------------------------------------

# start_meshd IMPL OUTER SENDERS: as an operator would: a controller, a token each, default policy.
start_meshd() {
    local impl=$1 outer=$2 senders=$3 dir=$WORK/$1 host
    mkdir -p -m 0700 "$dir" || return 1
    controller_config "$impl" "$outer" >"$dir/c.toml"
    launch "$impl" c "$BIN/meshd" --config "$dir/c.toml"
    await "$impl" c 20 "no answer from the controller" meshctl_of "$impl" c status || return 1
    for ((host = 0; host <= senders; host++)); do
        attach "$host"
        local segments=()
        if [[ $impl == meshd-segments ]]; then segments=(--segment default --segment second); fi
        (umask 077 && meshctl_of "$impl" c token create --name "host-$host" "${segments[@]}" >"$dir/$host.token" 2>/dev/null) ||
            trouble "$impl" "no token for host $host" c || return 1
        node_config "$impl" "$outer" "$host" >"$dir/$host.toml"
        launch "$impl" "$host" "$BIN/meshd" --config "$dir/$host.toml"
    done
    for ((host = 0; host <= senders; host++)); do
        await "$impl" "$host" 20 "host $host is no member" addresses_of "$impl" "$host" || return 1
    done
    for ((host = 1; host <= senders; host++)); do
        await "$impl" "$host" 20 "no ping from host $host" answers "$impl" "$host" || return 1
    done
    goes_over "$impl" "$outer" || return 1
    meshctl_of "$impl" 0 --json status | jq -r .interface.backend >"$WORK/$impl.backend"
    started "$impl"
}

controller_config() {
    cat <<TOML
role = "controller"
state_dir = "$WORK/$1/c"
socket = "$WORK/$1/c.sock"
listen = "[::]:$(controller_port "$1")"
advertise = ["$(endpoint "$2" c "$(controller_port "$1")")"]
TOML
    local range="10.$((100 + ${NUMBER[$1]})).0.0/16"
    case $1 in
        meshd-segments)
            printf '[[segment]]\nname = "%s"\nmesh_v4 = "%s"\n' \
                default "$range" second "10.$((150 + ${NUMBER[$1]})).0.0/16"
            ;;
        meshd-epoch2s) printf 'mesh_v4 = "%s"\nepoch_seconds = 2\n' "$range" ;;
        *) say "mesh_v4 = \"$range\"" ;;
    esac
}

node_config() {
    cat <<TOML
role = "node"
state_dir = "$WORK/$1/$3"
socket = "$WORK/$1/$3.sock"
join = "@$WORK/$1/$3.token"
listen_port = $(port "$1")
advertise = ["$(endpoint "$2" "$3" "$(port "$1")")"]
interface = "$(device "$1" "$3")"
mtu = $MTU
emitter = "mock"
TOML
    case $1 in
        meshd-tun-tap | meshd-offload) say "tun_backend = \"${1#meshd-}\"" ;;
        meshd-segments) say 'segments = ["default", "second"]' ;;
    esac
}

# meshctl_of IMPL HOST ARG…
meshctl_of() {
    local socket=$WORK/$1/$2.sock
    shift 2
    "$BIN/meshctl" --socket "$socket" "$@"
}

# addresses_of IMPL HOST: takes them over; fails while the node has none.
addresses_of() {
    local four six
    read -r four six < <(meshctl_of "$1" "$2" --json status | jq -r 'select(.membership == "ALLOWED") | .v4 + " " + .v6') || return 1
    [[ -n $four && -n $six ]] || return 1
    INSIDE4[$1/$2]=$four
    INSIDE6[$1/$2]=$six
}

# goes_over IMPL OUTER: whether host 1 sends to host 0 over that family indeed.
goes_over() {
    local want found
    want=$(endpoint "$2" 0 "$(port "$1")")
    found=$(meshctl_of "$1" 1 --json status | jq -r '.peers["host-0"].endpoint') || found=unknown
    [[ $found == "$want" ]] || trouble "$1" "host 1 sends to $found, not to $want"
}

# epoch_of IMPL: the epoch in force, for meshd; nothing for others.
epoch_of() {
    if [[ $1 == meshd* ]]; then meshctl_of "$1" 0 --json status | jq -r .epoch; fi
}

# answers IMPL HOST: whether HOST reaches host 0 through the tunnel, on both families.
answers() {
    on "$2" ping -n -q -c 1 -W 1 "${INSIDE4[$1/0]}" && on "$2" ping -n -q -c 1 -W 1 "${INSIDE6[$1/0]}"
}
