"""How a process waits for its threads: asleep. Nothing else here decides about threads.

OpenMP's threads spin while they wait for each other. On cores that they have to themselves that saves microseconds;
beside another busy process they take from each other what they wait for, and minutes become hours. It is decided as
OpenMP is loaded, that is, before torch is imported. How many threads compute is decided where they do:
`pipelines.transfer.invariance` and `training.fit.train`.
"""

import os

ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}  # of GNU's OpenMP, and Intel's


def wait_asleep() -> None:
    """Have this process, and those that it starts, wait asleep, unless the environment says how to."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
