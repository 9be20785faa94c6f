#!/usr/bin/env bash
# Brings the lab up: a controller and some nodes, each in a network namespace of its own, joined by
# one bridge. Returns when all nodes are enrolled and all members reach each other on IPv4 and IPv6.
# Running it again is safe: it leaves a healthy lab alone and restarts what died.
#
# Usage: sudo [SETTING=VALUE…] ./up.sh [-h|--help]
#
#   NUM_NODES=3            nodes: node-a, node-b, … (up to 676)
#   THRESHOLD=0.70         least score of a member
#   EPOCH_SECONDS=60       length of an epoch
#   MAX_BENCHMARK_AGE=120  oldest evidence that counts, in seconds
#   PROBATION_EPOCHS=1     epochs, the one it joins included, for which a new node needs no evidence
#   NODE_A_SCORE_MEAN=0.90 NODE_B_SCORE_MEAN=0.85 NODE_C_SCORE_MEAN=0.40, further nodes 0.85
#   SCORE_JITTER=0.03      how far a score strays from its mean
#   BENCHMARK=mock         or inspect: nodes take what Inspect writes into artifacts/results (evidence.sh does)
#   SEGMENTS=              segments, each with its nodes: "training:node-a,node-b inference:node-b,node-c" (up to 16);
#                          node-c's mean is 0.85 then
#   PROBE_SECONDS=2        pause between a node's pings to its peers
#   LOG_FORMAT=text        or json
#   UP_DEADLINE=120        seconds until this script gives up
#   MESHD_BIN_DIR          folder with meshd and meshctl; without it they are built from the sources
#
# Needs Linux and root, a Rust toolchain unless MESHD_BIN_DIR is set, and ip, ping, jq and setsid, which it installs
# where it can.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

main() {
    case ${1-} in
        '') ;;
        -h | --help) usage && exit ;;
        *) die "unknown argument: $1" "$0 --help" ;;
    esac
    require_root
    require_tools ip ping jq setsid
    # Before anything is built or taken down for settings that make no sense.
    (refuse_strangers)
    settle UP_DEADLINE
    is_up || (settings_from_environment)
    build
    choose_settings
    if is_up && all_running && is_ready 2>/dev/null; then
        say "The lab is up and healthy already."
        whats_next
        exit
    fi
    prepare_folders
    save_settings
    connect_everybody
    start_everybody
    await_everybody
    remove_used_tokens
    hand_over_to_user
    whats_next
}

# --- binaries -------------------------------------------------------------------------------------

# Builds as the user behind sudo, so that root owns nothing in the target folder.
build() {
    if [[ -z ${MESHD_BIN_DIR-} ]]; then
        say "Building meshd and meshctl (cargo build --release) …"
        # shellcheck disable=SC2016  # it is the inner shell that expands
        local command='PATH="$HOME/.cargo/bin:$PATH"; command -v cargo >/dev/null || exit 127
            cd "$1" && exec cargo build --release --quiet --bins -p meshd -p meshctl'
        local code=0
        as_user bash -c "$command" build "$REPO" || code=$?
        if ((code == 127)); then die "no cargo" "install Rust from https://rustup.rs, or set MESHD_BIN_DIR"; fi
        if ((code != 0)); then die "the build failed" "cd $REPO && cargo build --release"; fi
    fi
    local program
    for program in meshd meshctl; do
        [[ -x $BIN/$program ]] || die "no $BIN/$program" "set MESHD_BIN_DIR, or unset it to build"
    done
}

as_user() {
    if [[ -n ${SUDO_USER-} && $SUDO_USER != root ]]; then
        local home
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        runuser -u "$SUDO_USER" -- env HOME="$home" USER="$SUDO_USER" "$@"
    else
        "$@"
    fi
}

# --- settings and folders -------------------------------------------------------------------------

choose_settings() {
    local differ
    if is_up; then
        differ=$(settings_that_differ | tr '\n' ' ')
        if [[ -z $differ ]]; then
            settings_of_the_lab
            return
        fi
        if any_recorded_running; then
            die "the lab is up with another ${differ% }" "$LAB/down.sh, then $0 again"
        fi
    fi
    # Nothing runs: begin a new mesh, without what a failed attempt may have left.
    settings_from_environment
    "$LAB/down.sh" --quiet
    rm -rf -- "$CONFIG" "$LOGS" "$PIDS" "$SECRETS" "$RESULTS" "$STATUS_FILE"
}

any_recorded_running() {
    local file
    for file in "$PIDS"/*.pid; do
        if [[ -e $file ]] && is_running "$(basename -- "$file" .pid)"; then return 0; fi
    done
    return 1
}

all_running() {
    local name
    while read -r name; do is_running "$name" || return 1; done < <(daemon_names)
}

prepare_folders() {
    mkdir -p "$CONFIG" "$LOGS" "$PIDS"
    install -d -m 0700 "$SECRETS" "$SOCKETS"
    hand_over_to_user
}

# Logs and status are for the user behind sudo to read; keys and state stay root's alone.
hand_over_to_user() {
    if [[ -n ${SUDO_UID-} ]]; then
        chown "$SUDO_UID:${SUDO_GID-}" "$ARTIFACTS" "$ENV_FILE" "$STATUS_FILE" 2>/dev/null || true
        chown -R "$SUDO_UID:${SUDO_GID-}" "$LOGS" "$CONFIG"
    fi
}

# --- network --------------------------------------------------------------------------------------

connect_everybody() {
    say "Connecting $NUM_NODES nodes and a controller …"
    namespace underlay
    if ! ip -n $NS-underlay link show br0 &>/dev/null; then
        ip -n $NS-underlay link add br0 type bridge forward_delay 0 mcast_snooping 0
    fi
    ip -n $NS-underlay link set br0 up
    attach controller -1
    local i
    for ((i = 0; i < NUM_NODES; i++)); do attach "$(node_name "$i")" "$i"; done
}

namespace() {
    if [[ ! -e /run/netns/$NS-$1 ]]; then
        ip netns add "$NS-$1" || die "cannot make a network namespace" \
            "a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)"
    fi
    ip -n "$NS-$1" link set lo up
}

# attach NAME INDEX: gives NAME a namespace with an eth0 whose other end is in the bridge.
attach() {
    local name=$1 ns=$NS-$1 port=p-${1#node-}
    namespace "$name"
    if ! ip -n "$ns" link show eth0 &>/dev/null; then
        ip link add name eth0 netns "$ns" type veth peer name "$port" netns $NS-underlay
    fi
    ip -n $NS-underlay link set "$port" master br0 up
    ip -n "$ns" addr replace "$(underlay_v4 "$2")/15" dev eth0
    ip -n "$ns" addr replace "$(underlay_v6 "$2")/64" dev eth0 nodad
    ip -n "$ns" link set eth0 up
}

# --- daemons --------------------------------------------------------------------------------------

start_everybody() {
    started_at=$(microseconds)
    if ! is_running controller; then
        say "Starting the controller …"
        controller_config >"$CONFIG/controller.toml"
        start controller --role controller
    fi
    wait_until 20 controller_answers || give_up "the controller does not answer"

    local name known token
    known=$(ask '.nodes | keys[]')
    while read -r name; do
        if is_running "$name"; then continue; fi
        say "Starting $name …"
        node_config "$name" >"$CONFIG/$name.toml"
        token=$SECRETS/$name.token
        if grep -qxF -- "$name" <<<"$known" && [[ -d $SECRETS/$name ]]; then
            start "$name" --role node
        else
            create_token "$name" "$token"
            start "$name" --role node --join "@$token"
        fi
    done < <(node_names)
}

controller_answers() { meshctl_of controller status >/dev/null; }

create_token() {
    rm -f -- "$2"
    local segment allowed=()
    for segment in $(segments_of "$1"); do allowed+=(--segment "$segment"); done
    (umask 077 && meshctl_of controller token create --name "$1" "${allowed[@]}" >"$2" 2>>"$LOGS/controller.log") ||
        give_up "no token for $1"
}

# start NAME ARG…: starts meshd in NAME's namespace, detached from this terminal.
start() {
    local name=$1
    shift
    local log=$LOGS/$name.log
    # A background child of a script leads no process group, so that neither setsid nor ip forks and
    # the pid is meshd's own.
    setsid ip netns exec "$NS-$name" "$BIN/meshd" --config "$CONFIG/$name.toml" "$@" \
        </dev/null >>"$log" 2>&1 &
    local pid=$!
    say "$pid" >"$PIDS/$name.pid"
    wait_until 5 is_ours "$pid" "$name" || give_up "$name did not start"
}

controller_config() {
    cat <<TOML
# Written by netns-lab/up.sh.
state_dir = "$SECRETS/controller"
socket = "$SOCKETS/controller.sock"
listen = "[::]:7443"
advertise = ["$(underlay_v4 -1):7443", "[$(underlay_v6 -1)]:7443"]
status_file = "$STATUS_FILE"
log_format = "$LOG_FORMAT"
$(policy_config)
TOML
}

node_config() {
    local mean
    mean=$(mean_setting "$1")
    cat <<TOML
# Written by netns-lab/up.sh.
state_dir = "$SECRETS/$1"
socket = "$SOCKETS/$1.sock"
name = "$1"
listen_port = 51820
interface = "meshd0"
wireguard_dir = "$SOCKETS/$1.wireguard"
dns_listen = "127.0.0.1:53"
$(emitter_config "$1" "${!mean}")
probe_seconds = $PROBE_SECONDS
log_format = "$LOG_FORMAT"
$(segments_config "$1")
TOML
}

# segments_config NODE: the segments that it asks for.
segments_config() {
    local segment names=''
    for segment in $(segments_of "$1"); do names+="\"$segment\", "; done
    if [[ -n $names ]]; then say "segments = [${names%, }]"; fi
}

# emitter_config NODE MEAN
emitter_config() {
    if [[ $BENCHMARK == inspect ]]; then
        mkdir -p "$RESULTS/$1"
        cat <<TOML
emitter = "directory"
benchmark_directory = "$RESULTS/$1"
benchmark_format = "inspect"
TOML
    else
        cat <<TOML
emitter = "mock"
mock_mean = $(as_float "$2")
mock_jitter = $(as_float "$SCORE_JITTER")
emit_seconds = $(emit_seconds)
TOML
    fi
}

# The settings of the policy, or a file of them, or segments that each have that file.
policy_config() {
    if [[ $BENCHMARK == mock && -z $SEGMENTS ]]; then
        policy
        return
    fi
    say "# Written by netns-lab/up.sh." >"$CONFIG/policy.toml"
    policy >>"$CONFIG/policy.toml"
    if [[ -z $SEGMENTS ]]; then say "policy_file = \"$CONFIG/policy.toml\""; fi
    local segment range=80
    for segment in $(segment_names); do
        cat <<TOML

[[segment]]
name = "$segment"
policy_file = "$CONFIG/policy.toml"
mesh_v4 = "10.$range.0.0/16"
TOML
        ((++range))
    done
}

# What a member needs: a score of the mock, or the accuracy of the task that evidence.sh runs.
policy() {
    if [[ $BENCHMARK == inspect ]]; then
        cat <<TOML
epoch_seconds = $EPOCH_SECONDS
probation_epochs = $PROBATION_EPOCHS

[[require]]
name = "refusal"
harness = "inspect"
suite = "refusal"
threshold = $(as_float "$THRESHOLD")
max_age_seconds = $MAX_BENCHMARK_AGE
min_samples = 20

[[require.score]]
metric = "includes/accuracy"
TOML
    else
        cat <<TOML
threshold = $(as_float "$THRESHOLD")
epoch_seconds = $EPOCH_SECONDS
max_benchmark_age = $MAX_BENCHMARK_AGE
probation_epochs = $PROBATION_EPOCHS
TOML
    fi
}

# TOML tells 1 from 1.0.
as_float() {
    if [[ $1 == *.* ]]; then say "$1"; else say "$1.0"; fi
}

# --- waiting --------------------------------------------------------------------------------------

await_everybody() {
    local deadline=$((SECONDS + UP_DEADLINE)) line last='' epoch enrolled members answering pairs name things=nodes
    if [[ -n $SEGMENTS ]]; then things='places in segments'; fi
    until is_ready 2>/dev/null && all_connected 2>/dev/null; do
        if line=$(progress 2>/dev/null) && [[ $line != "$last" ]]; then
            last=$line
            read -r epoch enrolled members answering pairs _ <<<"$line"
            say "  epoch $epoch: $enrolled of $(places) $things enrolled, members: $members, pairs that ping: $answering of $pairs"
        fi
        while read -r name; do
            is_running "$name" || give_up "$name ended"
        done < <(daemon_names)
        if ((SECONDS >= deadline)); then give_up "not everybody reaches everybody after $UP_DEADLINE s"; fi
        sleep 0.25
    done
    local took=$((($(microseconds) - started_at) / 1000))
    read -r epoch _ members _ < <(progress)
    say "Up in epoch $epoch. Members: $members of $(places); each reaches all others${SEGMENTS:+ of its segments} on IPv4 and IPv6," \
        "$((took / 1000)).$(printf '%03d' $((took % 1000))) s after the first daemon was started."
}

# The nodes' own word: for a moment, the controller still believes in one that was just restarted.
all_connected() {
    local name control
    while read -r name; do
        control=$(meshctl_of "$name" --json status | jq -r .control)
        [[ $control == connected ]] || return 1
    done < <(node_names)
}

microseconds() { say "${EPOCHREALTIME//[^0-9]/}"; }

# A used token admits nobody, but there is no reason to keep it.
remove_used_tokens() { rm -f -- "$SECRETS"/*.token; }

give_up() {
    local name
    hand_over_to_user
    while read -r name; do
        if [[ $1 == "$name "* || $name == controller ]] || ! is_running "$name"; then
            show_log "$name"
        fi
    done < <(daemon_names)
    printf -- '---\n' >&2
    if controller_answers 2>/dev/null; then meshctl_of controller status >&2; fi
    die "$1" "look at $LAB/status.sh and $LAB/logs.sh; run $0 again to go on, or $LAB/down.sh to start over"
}

whats_next() {
    cat <<TEXT

Next, in $LAB:
  ./status.sh                who is a member, and why not
  ./logs.sh                  follow all logs
  ./meshctl.sh events        what happened
  ./exec.sh node-a ping node-b   run a command in a node's namespace
  ./set-score.sh node-c 0.95 let a node behave better, or worse
  ./rotate-now.sh            begin the next epoch
  ./demo.sh                  the whole story
  ./down.sh                  take everything down
TEXT
}

main "$@"
