# shellcheck shell=bash
# What every script of the lab needs: its settings, its names and addresses, its daemons and a few
# questions to the controller. Sourced, never run; it changes nothing by being sourced.
#
# A lab is up while artifacts/lab.env exists: that file remembers the settings it was started with.
#
# The scripts use what looks unused here, and jq's variables are not the shell's:
# shellcheck disable=SC2034,SC2016

LAB=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname -- "$LAB")
ARTIFACTS=$LAB/artifacts
ENV_FILE=$ARTIFACTS/lab.env
CONFIG=$ARTIFACTS/config       # one TOML file per daemon
LOGS=$ARTIFACTS/logs           # one log per daemon
PIDS=$ARTIFACTS/run            # one pid file per daemon
SECRETS=$ARTIFACTS/state       # keys and state, 0700
RESULTS=$ARTIFACTS/results     # one folder of a harness's results per node, with BENCHMARK=inspect
STATUS_FILE=$ARTIFACTS/status.json
SOCKETS=/run/meshlab           # a path of a Unix socket has at most 107 bytes, so not in artifacts
NS=meshlab                     # every namespace is called meshlab-…
BIN=${MESHD_BIN_DIR:-${CARGO_TARGET_DIR:-$REPO/target}/release}

readonly SETTINGS=(
    NUM_NODES THRESHOLD EPOCH_SECONDS MAX_BENCHMARK_AGE SCORE_JITTER PROBE_SECONDS LOG_FORMAT
    PROBATION_EPOCHS BENCHMARK SEGMENTS
)
readonly MAX_NODES=676
readonly MAX_SEGMENTS=16

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

require_root() {
    ((EUID == 0)) || die "network namespaces need root" "sudo $0 (settings go behind sudo: sudo NUM_NODES=5 $0)"
}

# require_tools TOOL…: installs what is missing where it can, as the tests do; else that says what to install.
require_tools() {
    local tool missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    if ((${#missing[@]} > 0)); then
        "$REPO/tests/tools" "${missing[@]}" || exit
    fi
}

# --- settings -------------------------------------------------------------------------------------

default_of() {
    case $1 in
        NUM_NODES) say 3 ;;
        THRESHOLD) say 0.70 ;;
        EPOCH_SECONDS) say 60 ;;
        MAX_BENCHMARK_AGE) say 120 ;;
        SCORE_JITTER) say 0.03 ;;
        PROBE_SECONDS) say 2 ;;
        LOG_FORMAT) say text ;;
        PROBATION_EPOCHS) say 1 ;;
        UP_DEADLINE) say 120 ;;
        BENCHMARK) say mock ;;
        SEGMENTS) say '' ;;
        NODE_A_SCORE_MEAN) say 0.90 ;;
        # The one who fails; but where there are segments, they are the story.
        NODE_C_SCORE_MEAN) if [[ -z $SEGMENTS ]]; then say 0.40; else say 0.85; fi ;;
        NODE_*_SCORE_MEAN) say 0.85 ;;
    esac
}

pattern_of() {
    case $1 in
        LOG_FORMAT) say '^(text|json)$' ;;
        BENCHMARK) say '^(mock|inspect)$' ;;
        THRESHOLD | SCORE_JITTER | *_SCORE_MEAN) say '^(0(\.[0-9]+)?|1(\.0+)?)$' ;;
        PROBATION_EPOCHS) say '^(0|[1-9][0-9]{0,3})$' ;;
        SEGMENTS) say '^[a-z0-9:, -]*$' ;;
        *) say '^[1-9][0-9]{0,5}$' ;;
    esac
}

# highest_of NAME: of a setting that is a number of things or seconds.
highest_of() {
    case $1 in
        NUM_NODES) say "$MAX_NODES" ;;
        PROBATION_EPOCHS) say 9999 ;;
        *) say 86400 ;;
    esac
}

# range_of NAME: in words.
range_of() {
    case $1 in
        LOG_FORMAT) say 'text or json' ;;
        BENCHMARK) say 'mock or inspect' ;;
        THRESHOLD | SCORE_JITTER | *_SCORE_MEAN) say '0 to 1, as in 0.85' ;;
        PROBATION_EPOCHS) say "0 to $(highest_of "$1")" ;;
        SEGMENTS) say 'segments with their nodes, as in "training:node-a,node-b inference:node-b,node-c"' ;;
        *) say "1 to $(highest_of "$1")" ;;
    esac
}

# Names of all settings, of the first NUM_NODES nodes' means too.
setting_names() {
    printf '%s\n' "${SETTINGS[@]}"
    local i
    for ((i = 0; i < NUM_NODES; i++)); do mean_setting "$(node_name "$i")"; done
}

# settle NAME: takes NAME from the environment or from its default, and checks it.
settle() {
    local name=$1 value
    value=${!name:-$(default_of "$name")}
    local hint="$LAB/up.sh --help lists the settings"
    [[ $value =~ $(pattern_of "$name") ]] || die "$name=$value makes no sense: it is $(range_of "$name")" "$hint"
    if [[ $value =~ ^[0-9]+$ ]] && ((value > $(highest_of "$name"))); then
        die "$name=$value is too much: it is $(range_of "$name")" "$hint"
    fi
    printf -v "$name" '%s' "$value"
}

settings_from_environment() {
    settle NUM_NODES
    local name
    while read -r name; do settle "$name"; done < <(setting_names)
    ((MAX_BENCHMARK_AGE > $(emit_seconds))) ||
        die "MAX_BENCHMARK_AGE=$MAX_BENCHMARK_AGE is too little: benchmarks come $(emit_seconds) s after each other" \
            "with EPOCH_SECONDS=$EPOCH_SECONDS it is $(($(emit_seconds) + 1)) to 86400"
    check_segments
}

# Refuses a variable of the environment that looks like a setting and is none, before the lab passes over it: one that is
# misspelt, or that is for a node that there is not.
refuse_strangers() {
    local name upper known own=() nodes
    if is_up && [[ -z ${NUM_NODES-} ]]; then NUM_NODES=$(sed -n 's/^NUM_NODES=//p' "$ENV_FILE"); fi
    settle NUM_NODES
    mapfile -t own < <(setting_names)
    nodes=" ${own[*]} "
    own=("${SETTINGS[@]}" UP_DEADLINE MESHD_BIN_DIR)
    while read -r name; do
        upper=${name^^}
        if [[ "$nodes ${own[*]} " == *" $name "* ]]; then continue; fi
        if [[ $upper =~ ^NODE_([A-Z0-9]+)_SCORE_MEAN$ ]]; then
            known=$(node_names | tr '\n' ' ')
            die "$name is for node-${BASH_REMATCH[1],,}, and the lab has not that node" \
                "it has: ${known% }; NUM_NODES says how many, and names are in capitals, as in NODE_A_SCORE_MEAN"
        fi
        if [[ $upper =~ ^NODE_([A-Z]{1,2})_.*(SCORE|MEAN) ]]; then
            die "$name is no setting of the lab: is NODE_${BASH_REMATCH[1]}_SCORE_MEAN meant?" "$LAB/up.sh --help lists the settings"
        fi
        for known in "${own[@]}" NODE_A_SCORE_MEAN; do
            # Short names of others are near to everything.
            if ((${#known} >= 8)) && is_near "$upper" "$known"; then
                die "$name is no setting of the lab: is $known meant?" "$LAB/up.sh --help lists the settings; if it is for something else: unset $name"
            fi
        done
    done < <(compgen -e)
}

# is_near ONE OTHER: whether at most two letters are changed, left out or put in.
is_near() {
    local one=$1 other=$2 i j least change row=() next=()
    local apart=$((${#one} - ${#other}))
    if ((apart > 2 || apart < -2)); then return 1; fi
    for ((j = 0; j <= ${#other}; j++)); do row[j]=$j; done
    for ((i = 1; i <= ${#one}; i++)); do
        next=("$i")
        for ((j = 1; j <= ${#other}; j++)); do
            change=1
            if [[ ${one:i-1:1} == "${other:j-1:1}" ]]; then change=0; fi
            least=$((row[j - 1] + change))
            if ((row[j] + 1 < least)); then least=$((row[j] + 1)); fi
            if ((next[j - 1] + 1 < least)); then least=$((next[j - 1] + 1)); fi
            next[j]=$least
        done
        row=("${next[@]}")
    done
    ((row[${#other}] <= 2))
}

# SEGMENTS is checked as a whole before anything is started by it.
check_segments() {
    local entry name node seen=' ' placed=' ' count=0 hint
    hint="as in SEGMENTS=\"training:node-a,node-b inference:node-b,node-c\""
    if [[ -z $SEGMENTS ]]; then return; fi
    for entry in $SEGMENTS; do
        [[ $entry =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:node-[a-z]+(,node-[a-z]+)*$ ]] ||
            die "SEGMENTS: \"$entry\" is not NAME:NODE,NODE…, where a name has up to 63 of a-z, 0-9 and -" "$hint"
        name=${entry%%:*}
        [[ $name != default ]] || die "SEGMENTS: \"default\" is the name of a mesh without segments" "choose another name"
        [[ $seen != *" $name "* ]] || die "SEGMENTS: \"$name\" is there twice" "name all of its nodes in one place"
        seen+="$name "
        ((++count <= MAX_SEGMENTS)) || die "SEGMENTS: there are more than $MAX_SEGMENTS" "leave some out"
        local own=' '
        for node in $(nodes_of "$name"); do
            node_names | grep -xF -- "$node" >/dev/null ||
                die "SEGMENTS: \"$name\" has $node, and the lab has not" "it has: $(node_names | tr '\n' ' '); NUM_NODES says how many"
            [[ $own != *" $node "* ]] || die "SEGMENTS: \"$name\" has $node twice" "$hint"
            own+="$node "
            placed+="$node "
        done
    done
    for node in $(node_names); do
        [[ $placed == *" $node "* ]] ||
            die "SEGMENTS: $node is in no segment" "put it into one, or run fewer nodes: NUM_NODES=…"
    done
}

save_settings() {
    local name
    while read -r name; do printf '%s=%s\n' "$name" "${!name}"; done < <(setting_names) >"$ENV_FILE"
}

is_up() { [[ -e $ENV_FILE ]]; }

require_up() { is_up || die "the lab is down" "$LAB/up.sh"; }

# show_log NAME: the end of a daemon's log, on standard error.
show_log() {
    {
        printf -- '--- the end of %s\n' "$LOGS/$1.log"
        tail -n 15 -- "$LOGS/$1.log" 2>/dev/null || say "(no log)"
    } >&2
}

# Names of settings that the environment wants otherwise than the lab that is up has them.
settings_that_differ() {
    local name value
    while IFS='=' read -r name value; do
        if [[ -n ${!name-} && ${!name} != "$value" ]]; then say "$name"; fi
    done <"$ENV_FILE"
}

# Takes over the settings of the lab that is up. The file is read as data and not run.
settings_of_the_lab() {
    local name value
    while IFS='=' read -r name value; do
        [[ $name =~ ^[A-Z_]+$ && $value =~ $(pattern_of "$name") ]] || die "cannot read $ENV_FILE" "$LAB/down.sh"
        printf -v "$name" '%s' "$value"
    done <"$ENV_FILE"
    settings_from_environment
}

# Benchmarks arrive often enough for every epoch, and not faster than somebody can follow.
emit_seconds() {
    local s=$((EPOCH_SECONDS / 3))
    if ((s < 1)); then s=1; fi
    if ((s > 15)); then s=15; fi
    say "$s"
}

# --- names and addresses --------------------------------------------------------------------------

# node_name INDEX: node-a … node-z, node-aa …
node_name() {
    local letters=abcdefghijklmnopqrstuvwxyz i=$1
    if ((i < 26)); then
        say "node-${letters:i:1}"
    else
        say "node-${letters:i/26-1:1}${letters:i%26:1}"
    fi
}

node_names() {
    local i
    for ((i = 0; i < NUM_NODES; i++)); do node_name "$i"; done
}

daemon_names() {
    say controller
    node_names
}

segment_names() {
    local entry
    for entry in $SEGMENTS; do say "${entry%%:*}"; done
}

# nodes_of SEGMENT
nodes_of() {
    local entry
    for entry in $SEGMENTS; do
        if [[ ${entry%%:*} == "$1" ]]; then tr ',' '\n' <<<"${entry#*:}"; fi
    done
}

# segments_of NODE: in the order of SEGMENTS.
segments_of() {
    local entry
    for entry in $SEGMENTS; do
        if [[ ,${entry#*:}, == *,"$1",* ]]; then say "${entry%%:*}"; fi
    done
}

# How many places there are to take: one of each node in each of its segments.
places() {
    if [[ -z $SEGMENTS ]]; then say "$NUM_NODES"; else for_each_place say | wc -l; fi
}

# for_each_place COMMAND…: runs it with each segment and each node in it.
for_each_place() {
    local segment node
    for segment in $(segment_names); do
        for node in $(nodes_of "$segment"); do "$@" "$segment" "$node"; done
    done
}

mean_setting() {
    local letters=${1#node-}
    say "NODE_${letters^^}_SCORE_MEAN"
}

# Addresses outside the mesh: 198.18.0.0/15 is set aside for tests (RFC 2544), fd00::/8 for everybody.
# underlay_v4 INDEX, where -1 is the controller
underlay_v4() {
    local i=$1
    if ((i < 0)); then say 198.18.0.1; else say "198.18.$((1 + i / 250)).$((1 + i % 250))"; fi
}

underlay_v6() {
    local i=$1
    if ((i < 0)); then say fd00:6d65:7368::1; else printf 'fd00:6d65:7368::1:%x\n' $((i + 1)); fi
}

require_daemon_name() {
    local name
    while read -r name; do
        if [[ $name == "$1" ]]; then return; fi
    done < <(daemon_names)
    die "the lab has no $1" "it has: $(daemon_names | tr '\n' ' ')"
}

inside() {
    local name=$1
    shift
    ip netns exec "$NS-$name" "$@"
}

# --- daemons --------------------------------------------------------------------------------------

# is_ours PID NAME: whether this process is the lab's daemon NAME; pids are used again, so the
# program and its configuration have to fit.
is_ours() {
    local pid=$1 name=$2 exe argv=() arg
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    exe=${exe% (deleted)}
    [[ ${exe##*/} == meshd ]] || return 1
    mapfile -d '' -t argv <"/proc/$pid/cmdline" 2>/dev/null || return 1
    for arg in "${argv[@]}"; do
        if [[ $arg == "$CONFIG/$name.toml" ]]; then return 0; fi
    done
    return 1
}

# pid_of NAME: the running daemon's pid, or failure.
pid_of() {
    local pid
    pid=$(cat "$PIDS/$1.pid" 2>/dev/null) || return 1
    [[ $pid =~ ^[1-9][0-9]*$ ]] && is_ours "$pid" "$1" && say "$pid"
}

is_running() { pid_of "$1" >/dev/null; }

# --- questions ------------------------------------------------------------------------------------

# meshctl_of NAME ARG…
meshctl_of() {
    local name=$1
    shift
    [[ -x $BIN/meshctl ]] || die "no $BIN/meshctl" "$LAB/up.sh builds it; MESHD_BIN_DIR names another folder"
    "$BIN/meshctl" --socket "$SOCKETS/$name.sock" "$@"
}

# ask [JQ-ARGUMENT…] FILTER: the controller's status through a jq filter.
ask() { meshctl_of controller --json status | jq -r "$@"; }

# of NODE FIELD: one field of one node's status.
of() { ask ".nodes[\"$1\"]$2"; }

epoch_id() { ask .epoch.id; }

# wait_until SECONDS COMMAND…: succeeds as soon as the command does, fails after SECONDS.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        if ((SECONDS >= deadline)); then return 1; fi
        sleep 0.25
    done
}

# Where the mesh stands: epoch, enrolled nodes, members, pairs of members that answer on IPv4 and IPv6,
# pairs of members, and nodes that are on their way: not connected, or outside although their
# probation or their score lets them in with an epoch to come.
progress() {
    if [[ -n $SEGMENTS ]]; then
        progress_by_segment
        return
    fi
    ask '.nodes as $nodes | .policy.threshold as $threshold
        | [$nodes | to_entries[] | select(.value.membership == "ALLOWED") | .key] as $members
        | [$members[] as $a | $members[] as $b | select($a != $b) | $nodes[$a].observes[$b]
            | select(.rtt_v4_ms != null and .rtt_v6_ms != null)] as $answering
        | [$nodes[] | select(.control != "connected"
            or (.membership == "DENIED" and .state != "EVICTED" and (.probation_left > 0
                or .last_benchmark == null or .last_benchmark.overall >= $threshold)))] as $on_their_way
        | [.epoch.id, ($nodes | length), ($members | length), ($answering | length),
           ($members | length | . * . - .), ($on_their_way | length)] | map(tostring) | join(" ")'
}

# The same with segments, where each node counts once in each. The controller is told of the echoes in the first segment
# of a node alone, so the nodes themselves are asked.
progress_by_segment() {
    local answering
    answering=$(answering_by_segment) || return 1
    ask --argjson answering "$answering" '(.segments | map_values(.policy.threshold)) as $threshold
        | [.nodes[] | .control as $control | .last_benchmark as $run | .segments | to_entries[]
            | .value + {segment: .key, control: $control, run: $run}] as $places
        | [$places[] | select(.membership == "ALLOWED")] as $members
        | ([$members | group_by(.segment)[] | length | . * . - .] | add // 0) as $pairs
        | [$places[] | select(.control != "connected" or (.membership == "DENIED" and .state != "EVICTED"
            and (.probation_left > 0 or .run == null or .score >= $threshold[.segment])))] as $on_their_way
        | [([.segments | to_entries[] | "\(.key)=\(.value.epoch.id)"] | join(",")), ($places | length),
           ($members | length), $answering, $pairs, ($on_their_way | length)] | map(tostring) | join(" ")'
}

# Pairs of members that answer on IPv4 and IPv6, in all segments together.
answering_by_segment() {
    local node own sum=0
    for node in $(node_names); do
        own=$(meshctl_of "$node" --json status | jq '[.segments[].peers[]
            | select(.membership == "ALLOWED" and .ping_v4.ok == true and .ping_v6.ok == true)] | length') || return 1
        ((sum += own)) || true
    done
    say "$sum"
}

# Nobody is on the way, and every member answers every other.
is_ready() {
    local enrolled answering pairs on_their_way
    read -r _ enrolled _ answering pairs on_their_way < <(progress) || return 1
    ((enrolled == $(places) && answering == pairs && on_their_way == 0))
}
