"""Workers for copgen under Slurm: a scheduler here, on the login node, and jobs that join it as they start.

    pip install 'copgen[cluster]' dask-jobqueue
    python examples/cluster_slurm.py --jobs 8 --scheduler-file scheduler.json &
    copgen prepare --region europe --scheduler scheduler.json
    copgen encode  --region europe --scheduler scheduler.json
    kill %1

With --gpus, each job has a GPU and says so: `copgen encode --device cuda` goes to these. --show prints the script that
Slurm is given, and submits nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4, help="Slurm jobs, each with one node's share of workers")
    parser.add_argument("--workers", type=int, default=8, help="worker processes of a job")
    parser.add_argument("--memory", default="32GB", help="of a job")
    parser.add_argument("--time", default="04:00:00", help="after which a job ends; its work goes to others")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account")
    parser.add_argument("--gpus", action="store_true", help="one GPU and one worker a job")
    parser.add_argument("--scheduler-file", type=Path, default=Path("scheduler.json"))
    parser.add_argument("--show", action="store_true", help="print a job's script and stop")
    asked = parser.parse_args()

    from dask_jobqueue import SLURMCluster

    workers = 1 if asked.gpus else asked.workers
    cluster = SLURMCluster(
        processes=workers,
        cores=workers,  # one thread each: a batch of patches keeps a core busy
        job_cpu=asked.workers,
        memory=asked.memory,
        walltime=asked.time,
        queue=asked.queue,
        account=asked.account,
        python=sys.executable,
        job_extra_directives=["--gpus=1"] if asked.gpus else [],
        worker_extra_args=["--resources", "GPU=1"] if asked.gpus else [],
        n_workers=0,
    )
    if asked.show:
        sys.stdout.write(cluster.job_script())
        return
    cluster.scale(jobs=asked.jobs)
    asked.scheduler_file.write_text(json.dumps({"type": "Scheduler", "address": cluster.scheduler_address}))
    where = f"Scheduler at {cluster.scheduler_address}, dashboard at {cluster.dashboard_link}"
    sys.stdout.write(f"{where}; Ctrl-C ends all jobs.\n")
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        asked.scheduler_file.unlink(missing_ok=True)
        cluster.close()


if __name__ == "__main__":
    main()
