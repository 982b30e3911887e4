"""The bench's work by NeMo-Run: scripts of a thousand jobs, or a hundred jobs of one experiment, on this very login host."""

import os
import sys
import time
from pathlib import Path

work = Path(sys.argv[2])
os.environ["NEMORUN_HOME"] = str(work / "nemo-home")

import nemo_run as run  # noqa: E402
from nemo_run.core.execution.slurm import SlurmBatchRequest  # noqa: E402

JOBS = 100


def executor() -> run.SlurmExecutor:
    # Experiments lie where this very machine wrote them: nothing has to be sent.
    tunnel = run.LocalTunnel(job_dir=str(work / "nemo-home" / "experiments"))
    return run.SlurmExecutor(
        account="bench", partition="batch", time="00:05:00", nodes=1, ntasks_per_node=1, mem=None,
        container_image=None, tunnel=tunnel, packager=run.Packager(),
    )


def render() -> None:
    executors = []
    for index in range(1000):
        own = executor()
        own.job_name = f"c{index}"
        own.assign("bench", str(work / "nemo" / "bench"), task_id=f"c{index}", task_dir=f"c{index}")
        executors.append(own)
    begun = time.perf_counter()
    for own in executors:
        SlurmBatchRequest(
            launch_cmd=["sbatch"], jobs=["job"], command_groups=[["true"]], executor=own, max_retries=0, extra_env={}
        ).materialize()
    print((time.perf_counter() - begun) * 1e6 / 1000)


def jobs() -> None:
    with run.Experiment("bench", executor=executor()) as experiment:
        for index in range(JOBS):
            experiment.add(run.Script(inline="sleep 1"), executor=executor(), name=f"job{index:02}")
        experiment.run(detach=False, tail_logs=False)


if __name__ == "__main__":
    render() if sys.argv[1] == "render" else jobs()
