"""figures.py SCENARIO IMPL ROUND FOLDER RECORDS: makes one record of one run's raw output.

Appends it to RECORDS as a line of JSON and prints its figures. A run that failed becomes a record
with its reason; figures.py itself fails only if it cannot read what run left.
"""

import json
import math
import os
import re
import sys
from pathlib import Path

from scenarios import BY_KEY, SCALING

TICKS = os.sysconf("SC_CLK_TCK")
PAYLOAD = 64


class Failed(Exception):
    """The run gave no figures; says why."""


def main(scenario, impl, round_, folder, records):
    record = {"scenario": scenario, "impl": impl, "round": int(round_)}
    folder = Path(folder)
    try:
        failed = text(folder / "failed")
        if failed:
            raise Failed(failed)
        record["figures"], record["raw"] = figures(scenario, impl, folder)
        if impl == "kernel":
            # Its processor time is nobody's daemon's.
            record["figures"] = {key: value for key, value in record["figures"].items() if not key.startswith("cpu_")}
        metrics = BY_KEY[scenario].metrics if scenario in BY_KEY else SCALING
        given = [metric for metric in metrics if metric.key in record["figures"]]
        print(", ".join(f"{record['figures'][metric.key]:.{metric.digits}f} {metric.unit}" for metric in given))
    except Failed as reason:
        record["failed"] = str(reason)
        print(f"FAILED: {reason}")
    with open(records, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def figures(scenario, impl, folder):
    raw = processor_time(impl, folder)
    epochs = [text(folder / f"epoch.{when}") for when in ("before", "after")]
    if all(epoch.isdigit() for epoch in epochs):
        raw["epochs_begun"] = int(epochs[1]) - int(epochs[0])
    if scenario == "udp64":
        return packets(folder, raw), raw
    if scenario == "rtt_idle":
        return pings(folder, raw), raw
    if scenario == "rtt_loaded":
        return {"gbit_per_s": stream(folder, 1, raw), **pings(folder, raw)}, raw
    if scenario.startswith("scaling_"):
        return fan_in(folder, int(scenario.removeprefix("scaling_")), raw), raw
    rate = stream(folder, 1, raw)
    return {"gbit_per_s": rate, "cpu_s_per_gb": raw["cpu_s"] / (raw["bytes"] / 1e9)}, raw


# --- processor time -------------------------------------------------------------------------------


def processor_time(impl, folder):
    """Seconds of processor time between the two snapshots: of the daemons measured, of all others."""
    before, after = (snapshot(folder / when) for when in ("before", "after"))
    used = {key: (after["daemons"].get(key, 0) - ticks) / TICKS for key, ticks in before["daemons"].items()}
    nodes = {key.removeprefix(f"{impl}/"): spent for key, spent in used.items() if key.startswith(f"{impl}/")}
    own = {key: spent for key, spent in nodes.items() if key != "c"}
    return {
        "seconds": after["time"] - before["time"],
        "cpu_s": sum(own.values()),
        "cpu_s_hub": own.get("0", 0.0),
        "cpu_s_other_daemons": sum(used.values()) - sum(own.values()),
        "machine_busy_s": (after["busy"] - before["busy"]) / TICKS,
        "machine_stolen_s": (after["stolen"] - before["stolen"]) / TICKS,
    }


def snapshot(path):
    found = {"daemons": {}}
    for line in text(path).splitlines():
        kind, *rest = line.split()
        if kind == "time":
            found["time"] = float(rest[0])
        elif kind == "daemon":
            found["daemons"][rest[0]] = int(rest[1])
        else:
            found["busy"], found["stolen"] = map(int, rest)
    if "busy" not in found:
        raise Failed("no processor times: the run was not finished")
    return found


# --- iperf3 ---------------------------------------------------------------------------------------


def stream(folder, host, raw):
    """Gbit/s that arrived after the omitted second; adds to raw all bytes that arrived at all."""
    client = iperf(folder, host)
    end = client["end"]
    received = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    raw["bytes"] = raw.get("bytes", 0) + arrived(client, "bytes")
    raw["retransmits"] = raw.get("retransmits", 0) + sum(
        end[key]["retransmits"] for key in ("sum_sent", "sum_sent_bidir_reverse") if key in end
    )
    raw["congestion"] = end.get("sender_tcp_congestion", "unknown")
    rate = sum(part["bits_per_second"] for part in received) / 1e9
    if rate <= 0 or raw["bytes"] <= 0:
        raise Failed("nothing arrived")
    return rate


def packets(folder, raw):
    client = iperf(folder, 1)
    received = client["end"]["sum_received"]
    raw["bytes"] = arrived(client, "bytes")
    raw["packets_sent_per_s"] = client["end"]["sum_sent"]["bytes"] / PAYLOAD / client["end"]["sum_sent"]["seconds"]
    rate = received["bytes"] / PAYLOAD / received["seconds"]
    if rate <= 0 or raw["bytes"] <= 0:
        raise Failed("nothing arrived")
    return {"kpps": rate / 1e3, "cpu_s_per_mpacket": raw["cpu_s"] / (raw["bytes"] / PAYLOAD / 1e6)}


def fan_in(folder, peers, raw):
    raw["gbit_per_s_by_peer"] = [stream(folder, host, raw) for host in range(1, peers + 1)]
    return {
        "gbit_per_s": sum(raw["gbit_per_s_by_peer"]),
        "cpu_s_per_gb": raw["cpu_s_hub"] / (raw["bytes"] / 1e9),
        "hub_cores": raw["cpu_s_hub"] / raw["seconds"],
    }


def iperf(folder, host):
    """What the client on this host wrote, with the server's own report in it."""
    try:
        client = json.loads(text(folder / f"client.{host}"))
    except ValueError as cause:
        said = text(folder / f"client.{host}.err").splitlines()
        raise Failed(said[-1] if said else "iperf3 did not end in time") from cause
    if "error" in client:
        raise Failed(f"iperf3: {client['error']}")
    if "intervals" not in client.get("server_output_json", {}):
        raise Failed("iperf3: no report from the server")
    return client


def arrived(client, what):
    """All that arrived, the omitted second too: the processor times are of the same window."""
    reports = client["intervals"] + client["server_output_json"]["intervals"]
    parts = [report[key] for report in reports for key in ("sum", "sum_bidir_reverse") if key in report]
    return sum(part[what] for part in parts if not part["sender"])


# --- ping -----------------------------------------------------------------------------------------


def pings(folder, raw):
    said = text(folder / "ping")
    times = sorted(float(time) * 1e3 for time in re.findall(r"time=([0-9.]+) ms", said))
    sent = re.search(r"([0-9]+) packets transmitted", said)
    if not times or not sent:
        raise Failed("no ping was answered")
    raw["pings_sent"], raw["pings_answered"] = int(sent[1]), len(times)
    return {"median_us": percentile(times, 50), "p99_us": percentile(times, 99)}


def percentile(ordered, share):
    return ordered[max(math.ceil(len(ordered) * share / 100) - 1, 0)]


def text(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
