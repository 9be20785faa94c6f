#!/usr/bin/env bash
# Tells the story of evidence: three nodes are evaluated by Inspect (UK AISI), with the policy's mapping from its
# metrics to a score. The runs of node-c get worse, it is quarantined, `explain` says why, and Go's verifier of
# transparency logs proves the event from the controller's log. Fails at the first step that does not hold; leaves
# the lab up.
#
# Usage: sudo [SETTING=VALUE…] ./evidence.sh [--written] [-h|--help]
#
#   --written        without Inspect: this script writes logs in Inspect's format itself, and says so
#   INSPECT_PYTHON   a Python that has inspect-ai (default: python3)
#
# The settings are those of up.sh. Needs what up.sh needs, Inspect, and Go with golang.org/x/mod
# (apt-get install golang-1.19-go golang-golang-x-mod-dev).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lab.bash
source "$(dirname -- "$(readlink -f -- "$0")")/lab.bash"

readonly EVERY=10
runner=

main() {
    local written=false
    while (($#)); do
        case $1 in
            --written) written=true ;;
            -h | --help) usage && exit ;;
            *) die "unknown argument: $1" "$0 --help" ;;
        esac
        shift
    done
    require_root
    require_tools ip ping jq
    find_go
    $written || find_inspect
    trap stop_runs EXIT

    bring_up
    if $written; then run_written; else run_inspect; fi
    patience=$((3 * EPOCH_SECONDS + 60))
    everybody_proves_itself
    the_runs_get_worse
    others_verify_it
    say
    say "That was the story. The lab stays up; take it down with $LAB/down.sh."
}

# --- steps ----------------------------------------------------------------------------------------

bring_up() {
    [[ -z ${SEGMENTS-} ]] || die "this story is about a mesh without segments" "unset SEGMENTS; demo.sh tells of them"
    export BENCHMARK=inspect
    if is_up; then "$LAB/down.sh"; fi
    mkdir -p "$RESULTS"
    local name
    for name in node-a node-b node-c; do right_of "$name" 19; done
    "$LAB/up.sh"
    settings_of_the_lab
    for name in node-a node-b node-c; do right_of "$name" 19; done
}

everybody_proves_itself() {
    step 1 "Everybody proves itself with a run of Inspect"
    say "Each node hands in what Inspect wrote, signed: 20 samples, 19 of them right. The policy maps the metric"
    say "includes/accuracy to a score, and a member needs $THRESHOLD."
    expect "all nodes have a score of 0.95" "$patience" all_score 0.95
    expect "all nodes are ALLOWED, and ACTIVE on the strength of it" "$patience" all_active
    show "$LAB/meshctl.sh" status
}

the_runs_get_worse() {
    step 2 "The runs of node-c get worse"
    right_of node-c 8
    say "8 of 20 samples are right from now on."
    expect "node-c is DENIED" "$patience" field_is node-c .membership DENIED
    expect "its state is QUARANTINED" 5 field_is node-c .state QUARANTINED
    show "$LAB/meshctl.sh" explain node-c
    expect "node-a and node-b are as good as ever" 20 field_is node-a .membership ALLOWED
}

others_verify_it() {
    step 3 "Others verify what happened"
    local folder seq
    folder=$(mktemp -d)
    seq=$(meshctl_of controller --json events --kind epoch_published --limit 1000 |
        jq -r '[.events[] | select(.body.removed["node-c"])] | last | .seq')
    say "Event $seq is the epoch that left node-c out."
    meshctl_of controller log key >"$folder/vkey"
    # The log grows meanwhile: the proof is of the checkpoint that comes with it.
    meshctl_of controller --json log prove "$seq" >"$folder/proof.json"
    jq -rj .checkpoint "$folder/proof.json" >"$folder/checkpoint"
    meshctl_of controller log export | head -n "$(jq -r .size "$folder/proof.json")" >"$folder/entries"
    (cd "$REPO/tests/interop/verify" && "$go" build -o "$folder/verify" main.go) ||
        die "the verifier does not build" "apt-get install golang-1.19-go golang-golang-x-mod-dev"
    show "$folder/verify" "$folder"
    passed "Go's golang.org/x/mod/sumdb, which has nothing of meshd in it, believes the log"
    sed -n "${seq}p" "$folder/entries" | jq -c '{seq, kind, removed: .body.removed}'
    sed -i "${seq}s/node-c/node-b/" "$folder/entries"
    if "$folder/verify" "$folder" 2>/dev/null; then
        die "a changed event was believed" "$folder has it"
    fi
    passed "with one word of that event changed, it does not"
    rm -rf -- "$folder"
}

# --- runs -----------------------------------------------------------------------------------------

# right_of NODE COUNT: so many of its 20 samples are right from now on.
right_of() { say "$2" >"$RESULTS/$1.right"; }

folders() { for name in node-a node-b node-c; do say "$RESULTS/$name"; done; }

run_inspect() {
    local all=()
    mapfile -t all < <(folders)
    # It ends with this script, however that ends: its standard input is a pipe from here.
    # shellcheck disable=SC2034  # it is held, not used
    exec {alive}> >("$python" "$LAB/inspect-run.py" "$EVERY" "${all[@]}" >>"$LOGS/inspect.log" 2>&1)
    runner=$!
}

run_written() {
    say "Inspect is not run: this script writes logs in its format."
    while sleep "$EVERY"; do
        local folder
        for folder in $(folders); do written "$folder"; done
    done &
    runner=$!
    local folder
    for folder in $(folders); do written "$folder"; done
}

written() {
    local right now
    right=$(<"$1.right")
    now=$(date --utc +%Y-%m-%dT%H:%M:%S+00:00)
    jq -n --argjson right "$right" --arg now "$now" '{
        version: 2, status: "success",
        eval: {run_id: $now, created: $now, task: "refusal", task_id: $now, task_version: 1, model: "mockllm/model",
            dataset: {samples: 20}, config: {epochs: 1}, packages: {inspect_ai: "0.3.285"}},
        results: {total_samples: 20, completed_samples: 20, scores: [{name: "includes", scorer: "includes",
            scored_samples: 20, unscored_samples: 0, metrics: {accuracy: {name: "accuracy", value: ($right / 20)}}}]},
        stats: {started_at: $now, completed_at: $now}, invalidated: false}' >"$1/.new"
    mv -- "$1/.new" "$1/refusal.json"
}

stop_runs() {
    if [[ -n $runner ]]; then kill "$runner" 2>/dev/null || true; fi
}

# --- tools ----------------------------------------------------------------------------------------

find_inspect() {
    python=${INSPECT_PYTHON:-python3}
    "$python" -c 'import inspect_ai' 2>/dev/null ||
        die "$python has no inspect-ai" "pip install inspect-ai, or name a Python that has it: INSPECT_PYTHON=…; or $0 --written"
}

find_go() {
    go=$(command -v go || echo /usr/lib/go-1.19/bin/go)
    [[ -x $go ]] || die "missing: go" "apt-get install golang-1.19-go golang-golang-x-mod-dev"
    export GO111MODULE=off GOPATH=${GOPATH:-/usr/share/gocode} GOCACHE=${GOCACHE:-/tmp/meshlab-go}
}

# --- telling --------------------------------------------------------------------------------------

step() { printf '\n== %s. %s\n\n' "$1" "$2"; }
passed() { say "  ok    $1"; }

# expect WHAT SECONDS COMMAND…
expect() {
    local what=$1
    shift
    if wait_until "$@"; then passed "$what"; else
        "$LAB/status.sh" || true
        die "step does not hold: $what" "$LAB/logs.sh --no-follow -n 50; $LOGS/inspect.log"
    fi
}

show() {
    printf '\n$ %s\n' "${*//"$REPO/"/}"
    "$@"
    say
}

field_is() { [[ $(of "$1" "$2") == "$3" ]]; }
all_active() { [[ $(ask '[.nodes[] | .membership == "ALLOWED" and .state == "ACTIVE"] | all') == true ]]; }
all_score() { [[ $(ask "[.nodes[].score == $1] | all") == true ]]; }

main "$@"
