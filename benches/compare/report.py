"""report.py compare|scaling WORK OUT: makes tables, picture and raw numbers of all records of a run."""

import datetime
import json
import os
import platform
import statistics
import sys
from collections import Counter
from pathlib import Path

import picture
from scenarios import SCALING, SCENARIOS, name_of


def main(kind, work, out):
    work, out = Path(work), Path(out)
    run = {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(work),
        "versions": pairs(work / "versions"),
        "settings": pairs(work / "settings"),
        "left_out": pairs(work / "left-out"),
        "backends": {path.stem: path.read_text().strip() for path in sorted(work.glob("*.backend"))},
        "records": [json.loads(line) for line in (work / f"{kind}.jsonl").read_text().splitlines()],
    }
    if kind == "scaling":
        write(out / "scaling.md", scaling_page(run))
    else:
        run["summary"] = summary(run)
        write(out / "compare.md", compare_page(run))
        write(out / "compare.svg", picture.draw(run))
    write(out / f"{kind}.json", json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def write(path, content):
    path.write_text(content, encoding="utf-8")
    print(f"written: {path}")


def pairs(path):
    if not path.exists():
        return {}
    return dict(line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())


def machine(work):
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "hardware", "cpu model")):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "processors": os.cpu_count(),
        "memory_gb": round(memory * 1024 / 1e9, 1),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "load_at_start": float((work / "load").read_text()),
    }


# --- statistics -----------------------------------------------------------------------------------


def spread(values):
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def summary(run):
    """scenario → implementation → metric → its spread and that of its ratio, round by round."""
    baseline = run["settings"]["baseline"]
    found = {}
    for scenario, impl in rows(run):
        row = {"failures": reasons(run, scenario.key, impl), "metrics": {}}
        for metric in scenario.metrics:
            mine, base = (by_round(run, scenario.key, who, metric.key) for who in (impl, baseline))
            ratios = [mine[n] / base[n] for n in mine if base.get(n)]
            row["metrics"][metric.key] = {"value": spread(list(mine.values())), "ratio": spread(ratios)}
        found.setdefault(scenario.key, {})[impl] = row
    return found


def rows(run):
    for scenario in SCENARIOS:
        if scenario.key in run["settings"]["scenarios"].split():
            for impl in run["settings"]["implementations"].split():
                yield scenario, impl


def by_round(run, scenario, impl, metric):
    return {
        record["round"]: record["figures"][metric]
        for record in run["records"]
        if (record["scenario"], record["impl"]) == (scenario, impl) and metric in record.get("figures", {})
    }


def reasons(run, scenario, impl):
    failed = [r for r in run["records"] if (r["scenario"], r["impl"]) == (scenario, impl) and "failed" in r]
    return dict(Counter(record["failed"] for record in failed))


# --- pages ----------------------------------------------------------------------------------------


def compare_page(run):
    settings = run["settings"]
    lines = ["# Data planes compared", "", "Written by `benches/compare/run`; not edited by hand.", ""]
    lines += ["![Bars of the medians below](compare.svg)", ""]
    lines += circumstances(run)
    lines += [
        f"Median of the rounds (least–most). × {name_of(settings['baseline'])}: the ratio in each round, to the run",
        "next to it; of these ratios the median (least–most). CPU: user and system time of both daemons, per",
        "10⁹ bytes or 10⁶ packets delivered.",
        "",
    ]
    for scenario in SCENARIOS:
        if scenario.key in run["summary"]:
            lines += section(run, scenario)
    return "\n".join(lines + left_out(run) + versions(run))


def circumstances(run):
    m, s = run["machine"], run["settings"]
    lines = [
        f"{run['date'][:10]}, {m['cpu']}, {m['processors']} processors ({m['architecture']}), "
        f"{m['memory_gb']} GB, Linux {m['kernel']}. Load before the start: {m['load_at_start']}.",
        f"Rounds: {s['rounds']}, of {s['seconds_per_run']} s per run. TCP: {', '.join(congestions(run))}.",
    ]
    raws = [record["raw"] for record in run["records"] if "raw" in record]
    if raws:
        other = max(raw["cpu_s_other_daemons"] / raw["seconds"] for raw in raws)
        stolen = max(raw["machine_stolen_s"] / raw["seconds"] for raw in raws)
        lines.append(
            f"All other daemons together used at most {other:.1%} of one processor during a run; the "
            f"hypervisor took at most {stolen:.1%}."
        )
    ran = {record["impl"] for record in run["records"]}
    for impl, backend in run["backends"].items():
        if impl not in ran:
            continue
        begun = sum(r["raw"].get("epochs_begun", 0) for r in run["records"] if r["impl"] == impl and "raw" in r)
        lines.append(f"{name_of(impl)}: TUN back end {backend}; epochs that began during its runs: {begun}.")
    return lines + [""]


def congestions(run):
    found = {record["raw"]["congestion"] for record in run["records"] if "congestion" in record.get("raw", {})}
    return sorted(found) or ["not measured"]


def section(run, scenario):
    against = f"× {name_of(run['settings']['baseline'])}"
    heads = ["Implementation"]
    for metric in scenario.metrics:
        heads += [metric.unit, against]
    lines = [f"## {scenario.title} (`{scenario.key}`)", "", scenario.text, ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    notes = []
    for impl, row in run["summary"][scenario.key].items():
        cells = [name_of(impl)]
        for metric in scenario.metrics:
            cells += cells_of(row["metrics"][metric.key], metric, impl)
        lines.append("| " + " | ".join(cells) + " |")
        for reason, times in row["failures"].items():
            notes.append(f"{name_of(impl)} failed in {times} of {run['settings']['rounds']} runs: {reason}")
    return lines + [""] + [line for note in notes for line in (note, "")]


def cells_of(found, metric, impl):
    if metric.key.startswith("cpu_") and impl == "kernel":
        return ["no daemon", "–"]
    if found["value"] is None:
        return ["failed", "–"]
    return [range_of(found["value"], metric.digits), range_of(found["ratio"], 2)]


def range_of(found, digits):
    if found is None:
        return "–"
    middle, least, most = (f"{found[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({least}–{most})"


def left_out(run):
    if not run["left_out"]:
        return []
    return ["## Left out", ""] + [f"{name_of(impl)}: {why}." for impl, why in run["left_out"].items()] + [""]


def versions(run):
    lines = ["## Versions", "", "| | |", "|---|---|"]
    return lines + [f"| {what} | {says} |" for what, says in run["versions"].items()] + [""]


def scaling_page(run):
    lines = ["# A hub and its peers", "", "Written by `benches/compare/run`; not edited by hand.", ""]
    lines += circumstances(run)
    lines += [
        "One TCP stream from each peer to the hub, all at once; the sum. All daemons share this machine's",
        "processors. Median of the rounds (least–most).",
        "",
        "| Peers | " + " | ".join(metric.unit for metric in SCALING) + " |",
        "|---:" * (len(SCALING) + 1) + "|",
    ]
    notes = []
    for peers in run["settings"]["scaling_peers"].split():
        scenario, impl = f"scaling_{peers}", "meshd"
        found = [spread(list(by_round(run, scenario, impl, metric.key).values())) for metric in SCALING]
        cells = [range_of(f, metric.digits) if f else "failed" for f, metric in zip(found, SCALING)]
        lines.append(f"| {peers} | " + " | ".join(cells) + " |")
        for reason, times in reasons(run, scenario, impl).items():
            notes.append(f"{peers} peers failed in {times} of {run['settings']['rounds']} runs: {reason}")
    lines += [""] + [line for note in notes for line in (note, "")]
    return "\n".join(lines + versions(run))


if __name__ == "__main__":
    main(*sys.argv[1:])
