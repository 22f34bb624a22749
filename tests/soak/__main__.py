"""Endless trials of faults: kills, outages and full disks at seeded random moments of real studies.

    make soak                                      go on with the next seeds for half an hour
    python -m tests.soak --runs 1000 --jobs 2      so many more runs
    python -m tests.soak --only 4711               one run again, with its folder kept
    python -m tests.soak --print                   the table of all results so far, without another run
    python -m tests.soak --networks --runs 50      kills inside the trainings of networks (see ``networks``)

Each run draws from its seed a small study, a way through the product (on this machine, the pipeline's steps, a
retuning, promotions), a store (a folder or real S3), an MLflow (a database or a real server), and up to three faults.
S3 and the server are on loopback, behind a proxy. What failed is done again, as a user would; then the run is compared
with one that nothing has disturbed: trials, the tuner to the last bit, MLflow, the registry, processes, files.

A line of JSON for each run is added to the results, so that the next call goes on with the next seeds and the table
adds up. A run that went wrong keeps its folder. The exit status is 1 if anything was ever lost, doubled, wrong, hung or
left RUNNING. Disks are filled only where this may mount some (as root).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

# One thread each, and a process that may be forked: before anything is imported that would start some.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", ARROW_DEFAULT_MEMORY_POOL="system")

BUILD = Path("build/soak")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, metavar="N", help="end after so many runs")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no further run after so many minutes")
    parser.add_argument("--seed", type=int, metavar="S", help="the first seed; default: after those in the results")
    parser.add_argument("--only", type=int, metavar="SEED", help="this run alone; the results stay as they are")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="these runs alone, into the results")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at once (default: 1)")
    parser.add_argument("--results", type=Path, default=BUILD / "results.jsonl", metavar="FILE")
    parser.add_argument("--work", type=Path, default=BUILD / "work", metavar="DIR", help="folders of the runs")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write the results' counts there, as JSON")
    parser.add_argument("--networks", action="store_true", help="kills in trainings of networks; printed, and not kept")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    return parser


def main() -> int:
    given = parser().parse_args()
    # The servers are to end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from tests.soak import results

    if not given.only_print:
        from tests.soak import campaign

        if given.networks:
            first, seeds = given.seed or 1, given.seeds or ([given.only] if given.only is not None else None)
            seeds = seeds or range(first, first + (given.runs or 50))
            return int(not campaign.kill_networks(given.work, seeds, keep=given.only is not None))
        if given.only is not None:
            return campaign.repeat(given.only, given.work)
        campaign.go_on(given.results, given.work, given.seed, given.seeds, given.runs, given.minutes, given.jobs)
    summary = results.summarise(results.load(given.results))
    print(results.text(summary))
    if given.summary is not None:
        given.summary.parent.mkdir(parents=True, exist_ok=True)
        given.summary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return int(results.failed(summary))


if __name__ == "__main__":
    sys.exit(main())
