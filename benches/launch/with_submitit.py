"""The bench's work by submitit: scripts of a thousand jobs, or a hundred jobs handed over as it advises, as one array."""

import sys
import time
from pathlib import Path

import submitit
from submitit.slurm.slurm import _make_sbatch_string

JOBS = 100


def render() -> None:
    begun = time.perf_counter()
    for index in range(1000):
        _make_sbatch_string(command="true", folder=Path(f"/runs/c{index}"), job_name=f"c{index}", time=60, cpus_per_task=1)
    print((time.perf_counter() - begun) * 1e6 / 1000)


def jobs(work: Path) -> None:
    executor = submitit.AutoExecutor(folder=work / "submitit", cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_account="bench", slurm_array_parallelism=JOBS)
    for job in executor.map_array(time.sleep, [1] * JOBS):
        job.result()


if __name__ == "__main__":
    render() if sys.argv[1] == "render" else jobs(Path(sys.argv[2]))
