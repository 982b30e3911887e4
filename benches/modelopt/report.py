"""What the bench found, as a JSON file and as a table for people."""

import json
import math
import os
import platform


def check(what, value, at_least=None, at_most=None):
    """One figure against its target."""
    met = value >= at_least if at_least is not None else value <= at_most
    target = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:.3g}"
    return {"what": what, "value": round(value, 3), "target": target, "met": met}


def cpu_name():
    with open("/proc/cpuinfo") as lines:
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.processor())


def header(options):
    """The file's beginning. With `--only`, the lines of the file as it is stay."""
    results = {
        "what": "qlaunch against NVIDIA ModelOpt, source model to checkpoint (without digests, which ModelOpt writes none of), "
                "calibrated on 8192 tokens, 1 thread each, in turn; CPU-seconds of "
                "all processes without ModelOpt's imports, peak_mib of the largest process; a load average above 1 "
                "says that the machine was shared",
        "cpu": cpu_name(), "cores": os.cpu_count(), "quick": options.quick, "versions": {},
        "modelopt_import_cpu_s": None, "lines": {},
    }
    if options.only and os.path.exists(options.result):
        with open(options.result) as file:
            earlier = json.load(file)
        results |= {key: earlier[key] for key in ("lines", "versions", "modelopt_import_cpu_s")}
    return results


def save(results, path):
    """Written beside and renamed, after every line: a kill loses the line that runs."""
    with open(f"{path}.part", "w") as file:
        json.dump(results, file, indent=2, ensure_ascii=False)
        file.write("\n")
    os.replace(f"{path}.part", path)


def line_target(found):
    return float(found["target"].removeprefix("≥ ")) if found["target"].startswith("≥") else -math.inf


def rows(results, names):
    for name in names:
        line = results["lines"][name]
        if "not_measured" in line:
            yield [name, "", "", "", "", "not measured: " + line["not_measured"]]
            continue
        other = line.get("modelopt") or line["dense"]
        # One that was stopped would have taken more.
        more = "> " if "stopped" in other else ""
        figures = [f"{line['qlaunch']['cpu_s']:.2f}", f"{more}{other['cpu_s']:.2f}"]
        for found in line["checks"]:
            most = line.get("most_times_fewer", math.inf)
            unreachable = f"; one pass over the data allows at most {most:g}" if most < line_target(found) else ""
            verdict = "met" if found["met"] else f"MISSED{unreachable}"
            bound = more if found["what"].startswith("times fewer") else ""
            yield [name, *figures, f"{bound}{found['value']:.2f} {found['what']}", found["target"], verdict]
            name, figures = "", ["", ""]


def table(results, names):
    """One row for each target."""
    titles = ["line", "qlaunch CPU-s", "ModelOpt or dense", "found", "target", "verdict"]
    body = list(rows(results, names))
    widths = [max(len(row[column]) for row in [titles, *body]) for column in range(5)]
    text = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]) for row in [titles, *body]]
    loads = [line["load_average"] for line in results["lines"].values()]
    shared = f"load average {min(loads)} to {max(loads)} on {results['cores']} cores"
    return "\n".join([*text, "", f"{results['cpu']}, {shared}"])
