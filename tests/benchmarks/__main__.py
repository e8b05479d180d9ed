"""Speed and memory as ratios, measured side by side in one run: `make bench`, or with names to run only some.

Absolute numbers belong to the machine they are printed with; the ratios are what the project promises.
"""

import argparse
import platform
import subprocess
import sys
import time

import torch

from infra.cluster import cores
from tests.benchmarks import (
    attention,
    bucket,
    busy,
    compact,
    driver,
    fitting,
    invariance,
    job,
    memory,
    serving,
    soak,
    tuning,
)

BENCHMARKS = {
    "attention": attention.run,
    "compact": compact.run,
    "invariance": invariance.run,
    "busy": busy.run,
    "tuning": tuning.run,
    "fitting": fitting.run,
    "job": job.run,
    "memory": memory.run,
    "actors": bucket.actors,
    "resume": bucket.resume,
    "first": bucket.first,
    "driver": driver.run,
    "mixed": serving.mixed,
    "again": serving.again,
    "overhead": serving.overhead,
    "registered": serving.registered,
    "soak": soak.run,
}


def main(arguments: list[str]) -> None:
    """Run the benchmarks that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(BENCHMARKS)}")
    names = parser.parse_args(arguments).names
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; known are {', '.join(BENCHMARKS)}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cores()} cores"
    print(f"# commit {commit or 'unknown'}, {platform.machine()}, {device}, torch {torch.__version__}")
    for name in names or BENCHMARKS:
        began = time.perf_counter()
        print(f"\n## {name}\n")
        BENCHMARKS[name]()
        print(f"\n({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
