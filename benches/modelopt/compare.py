"""Runs ModelOpt and qlaunch in turn on every line, one thread each; writes JSON and prints a table.

usage: compare.py --modelopt PYTHON --programs FOLDER --models FOLDER --result FILE [--rounds N] [--quick] [--only TEXT]
The cheapest of all rounds counts. ModelOpt's imports are measured apart and not counted.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

from lines import DENSE, LINES, MODELOPT_BATCH, SEARCH_RECIPES, TOKENS, linears_per_token, useful_flops
from report import check, header, save, table

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}


# CPU-seconds that ModelOpt may take in any case.
LONG_CPU_S = 300


class NotMeasured(Exception):
    """A program that failed, and the last of what it said."""


@dataclass
class Model:
    folder: str
    tokens: str
    # Tokens of a sample.
    length: int
    config: dict = field(init=False)

    def __post_init__(self):
        with open(f"{self.folder}/config.json") as file:
            self.config = json.load(file)

    @property
    def samples(self):
        return TOKENS // self.length


class Bench:
    def __init__(self, options, lines):
        self.options = options
        # What has been measured, by name.
        self.lines = lines
        self.models = {}
        self.versions = {}
        self.import_cpu_s = None
        self.server = None

    def model(self, name):
        """A model by name, made on its first use."""
        if name not in self.models:
            self.models[name] = self.tiny() if name == "tiny-llama" else self.random(name)
        return self.models[name]

    def tiny(self):
        return Model(f"{ROOT}/examples/models/tiny-llama", f"{ROOT}/examples/data/calib_tokens.npy", 256)

    def random(self, name):
        layers = ["2"] if self.options.quick else []
        folder = os.path.join(self.options.models, "-".join([name, *layers]))
        if not os.path.exists(f"{folder}/config.json"):
            print(f"making the random model {folder}", file=sys.stderr)
            subprocess.run([self.options.modelopt, f"{HERE}/models.py", folder, name, *layers], check=True)
        return Model(folder, f"{folder}/tokens.npy", 512)

    def measure(self, command):
        """What `measure.py` says of a command."""
        environment = {**os.environ, **ONE_THREAD, "QLAUNCH_THREADS": "1", "QLAUNCH_WORKER": f"{self.options.programs}/qlaunch-worker"}
        # A measuring process of its own stays small: a child's peak memory starts at its parent's.
        done = subprocess.run([sys.executable, f"{HERE}/measure.py", *command], env=environment, text=True,
                              capture_output=True)
        taken = json.loads(done.stdout) if done.returncode == 0 else {"status": done.returncode}
        if taken["status"] != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()][-3:]
            raise NotMeasured(" | ".join(said)[-400:])
        return taken

    def qlaunch(self, line, model):
        command = [f"{self.options.programs}/qlaunch", "quantize", model.folder, "--recipe", line.recipe,
                   "--threads", "1", "--yes", "--no-digests"]
        if line.calibrated:
            command += ["--calib", model.tokens, "--samples", str(model.samples)]
        with folder_for_output() as out:
            return self.measure([*command, "--out", f"{out}/checkpoint"])

    def modelopt(self, line, model, ours):
        """What ModelOpt takes; it is stopped where it has taken so many times ours that no target is in doubt."""
        if self.server is None:
            self.start_modelopt()
        with folder_for_output() as out:
            job = {"model": model.folder, "recipe": line.recipe, "tokens": model.tokens if line.calibrated else None,
                   "samples": model.samples, "batch": MODELOPT_BATCH[line.kind], "out": f"{out}/checkpoint",
                   "most_cpu_s": math.ceil(max(LONG_CPU_S, self.options.most_times * ours["cpu_s"]))}
            self.server.stdin.write(json.dumps(job) + "\n")
            self.server.stdin.flush()
            taken = self.answer()
        if "error" in taken:
            raise NotMeasured(taken["error"])
        return taken

    def start_modelopt(self):
        """Begins the process that imports ModelOpt once; it ends with its standard input."""
        with open(f"{os.environ['QLAUNCH_BENCH_DIR']}/modelopt.log", "w") as log:
            self.server = subprocess.Popen(
                [self.options.modelopt, f"{HERE}/modelopt_jobs.py"], env={**os.environ, **ONE_THREAD}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        greeting = self.answer()
        self.versions |= greeting["versions"]
        self.import_cpu_s = greeting["import_cpu_s"]

    def answer(self):
        text = self.server.stdout.readline()
        if not text:
            sys.exit(f"error: ModelOpt ended\nhint: read {os.environ['QLAUNCH_BENCH_DIR']}/modelopt.log")
        return json.loads(text)

    def products(self):
        """GFLOP per CPU-second of one bf16 product, torch's and ours."""
        commands = {"torch": [self.options.modelopt, f"{HERE}/gemm.py"],
                    "qlaunch": [f"{self.options.programs}/examples/product"]}
        speeds = {}
        for name, command in commands.items():
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            speeds[name] = said["gflop_per_cpu_s"]
            self.versions |= {"numeric path": said["path"]} if "path" in said else {}
        return speeds

    def run(self, line):
        """All rounds of one line."""
        try:
            return {"weights": self.run_weights, "search": self.run_search, "together": self.run_together,
                    "calibrate": self.run_calibrate, "moe": self.run_moe}[line.kind](line)
        except NotMeasured as failure:
            return {"not_measured": str(failure)}

    def alternate(self, line):
        """Ours and theirs in turn; ours first, since a recipe that we lack makes the other pointless."""
        model = self.model(line.model)
        ours, theirs = [], []
        for _ in range(self.options.rounds):
            ours.append(named("qlaunch", self.qlaunch, line, model))
            theirs.append(named("ModelOpt", self.modelopt, line, model, ours[-1]))
        return cheapest(ours), cheapest(theirs)

    def run_weights(self, line):
        ours, theirs = self.alternate(line)
        return pair(ours, theirs, [check("times fewer CPU-seconds", theirs["cpu_s"] / ours["cpu_s"], at_least=10)])

    def run_search(self, line):
        """Also the least that one pass over the data can take, at the better product's rate: where that alone is more than the
        target leaves, no program that calibrates on all of the data can reach it."""
        before = self.products()
        ours, theirs = self.alternate(line)
        after = self.products()
        rate = max(max(before[name], after[name]) for name in before)
        model = self.model(line.model)
        least = useful_flops(model.config, model.samples, model.length) / rate / 1e9
        return pair(ours, theirs, [check("times fewer CPU-seconds", theirs["cpu_s"] / ours["cpu_s"], at_least=5)]) | {
            "one_pass_cpu_s": round(least, 2), "most_times_fewer": round(theirs["cpu_s"] / least, 1)}

    def run_calibrate(self, line):
        before = self.products()
        ours, theirs = self.alternate(line)
        after = self.products()
        fastest = {name: round(max(before[name], after[name]), 1) for name in before}
        model = self.model(line.model)
        rate = useful_flops(model.config, model.samples, model.length) / ours["cpu_s"] / 1e9
        return pair(ours, theirs, [
            check("of ModelOpt's CPU-seconds", ours["cpu_s"] / theirs["cpu_s"], at_most=0.8),
            check("of the better product's FLOP rate", rate / max(fastest.values()), at_least=0.85),
            check("of ModelOpt's peak memory", ours["peak_mib"] / theirs["peak_mib"], at_most=1 / 3),
        ]) | {"product_gflop_per_cpu_s": fastest, "useful_gflop_per_cpu_s": round(rate, 1)}

    def run_together(self, line):
        """All searches on a model as candidates of one sweep, which sends the data through once, against ModelOpt's runs for each."""
        singles = [other for name, other in self.lines.items() if name.startswith(f"search/{line.model}/")]
        singles = [other["modelopt"] for other in singles if "modelopt" in other]
        if len(singles) < len(SEARCH_RECIPES):
            raise NotMeasured(f"needs all lines search/{line.model}/…")
        model, rounds = self.model(line.model), []
        for _ in range(self.options.rounds):
            rounds.append(named("qlaunch", self.sweep, model))
        theirs = {"cpu_s": round(sum(single["cpu_s"] for single in singles), 3)}
        theirs |= {"stopped": True} if any("stopped" in single for single in singles) else {}
        ours = cheapest(rounds)
        times = theirs["cpu_s"] / ours["cpu_s"]
        return pair(ours, theirs, [check("times fewer CPU-seconds than all of them", times, at_least=5)])

    def sweep(self, model):
        """The searches as one sweep, with as little evaluation as a sweep can have."""
        with folder_for_output() as out:
            sweep = {
                "version": 1, "name": "searches", "model": os.path.abspath(model.folder), "objective": "memory",
                "acceptance": {"perplexity": {"within": "90%", "of": "bf16"}},
                "calibration": {"data": model.tokens, "samples": model.samples},
                "evaluate": {"data": model.tokens, "samples": 1, "seq_len": 16},
                "baselines": ["bf16"], "candidates": SEARCH_RECIPES,
            }
            with open(f"{out}/sweep.yaml", "w") as file:
                json.dump(sweep, file)
            return self.measure([f"{self.options.programs}/qlaunch", "submit", "--cluster", "local", "--yes",
                                 "--runs", f"{out}/runs", f"{out}/sweep.yaml"])

    def run_moe(self, line):
        experts, dense = self.model(line.model), self.model(DENSE)
        sparse_runs, dense_runs = [], []
        for _ in range(self.options.rounds):
            sparse_runs.append(named("qlaunch", self.qlaunch, line, experts))
            dense_runs.append(named("qlaunch", self.qlaunch, line, dense))
        taken, reference = cheapest(sparse_runs), cheapest(dense_runs)
        share = taken["cpu_s"] / linears_per_token(experts.config)
        share /= reference["cpu_s"] / linears_per_token(dense.config)
        return {"qlaunch": taken, "dense": reference,
                "checks": [check("times dense CPU-seconds per active parameter", share, at_most=1.5)]}


def folder_for_output():
    """Beside the models, so that no program writes to memory."""
    return tempfile.TemporaryDirectory(dir=os.environ["QLAUNCH_BENCH_DIR"])


def named(program, work, *arguments):
    try:
        return work(*arguments)
    except NotMeasured as failure:
        raise NotMeasured(f"{program}: {failure}") from failure


def cheapest(rounds):
    return min(rounds, key=lambda taken: taken["cpu_s"])


def pair(ours, theirs, checks):
    return {"qlaunch": ours, "modelopt": theirs, "checks": checks}


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("modelopt", "programs", "models", "result"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--most-times", type=float, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    return parser.parse_args()


def main():
    options = arguments()
    chosen = [line for line in LINES if options.only in line.name]
    if not chosen:
        sys.exit(f"error: no line is named like `{options.only}`\nhint: {', '.join(line.name for line in LINES)}")
    results = header(options)
    bench = Bench(options, results["lines"])
    for line in chosen:
        print(f"{line.name}", file=sys.stderr)
        load = round(os.getloadavg()[0], 1)
        results["lines"][line.name] = bench.run(line) | {"load_average": load}
        results["versions"] |= bench.versions
        results["modelopt_import_cpu_s"] = bench.import_cpu_s or results.get("modelopt_import_cpu_s")
        save(results, options.result)
    print(table(results, [line.name for line in chosen]))


if __name__ == "__main__":
    main()
