"""The runtime environment of a Ray job: which variables, whose source, which packages go along.

`python -m infra.deploy.environment` prints the variables as JSON, for `ray job submit --runtime-env-json`.

The variables that decide where things are go along. Keys do not: Ray shows a job's environment to whoever asks, and
writes it to its logs. The nodes have an identity of their own: an instance role, a mounted secret, or variables in
the environment of `ray start`.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from infra import threads
from infra.errors import UsageError
from infra.settings import PREFIX, expanded

TAKEN_ALONG = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_REQUEST_CHECKSUM_CALCULATION", PREFIX)
REGISTRY, BASE = f"{PREFIX}REGISTRY", f"{PREFIX}BASE"
LEFT_HERE = (f"{PREFIX}CACHE", f"{PREFIX}SERVING")  # each machine's own affair; no affair of a job
PACKAGES = ("infra", "pipelines", "serving", "training")
DISTRIBUTION = "edit-transfer"
THE_CLUSTERS = "ray"  # a job runs with the Ray of its cluster, never with one that it brings


def runtime_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`env_vars` for a Ray job. Local places are made absolute; a cache is each machine's own affair."""
    taken = {key: value for key, value in environment.items() if key.startswith(TAKEN_ALONG) and key not in LEFT_HERE}
    taken = {name: environment.get(name, value) for name, value in threads.ENVIRONMENT.items()} | taken
    for key, absolute in ((REGISTRY, expanded), (BASE, base_place)):
        if taken.get(key):
            taken[key] = absolute(taken[key])
    return {"env_vars": taken}


def base_place(base: str) -> str:
    """A folder with a base made absolute, to mean the same on a shared disk; the Hub id of one as it is."""
    return expanded(base) if base.startswith((".", "~")) or Path(base).is_dir() else base


@contextmanager
def source() -> Iterator[Path]:
    """A folder with this project's packages and nothing else, wherever they are installed; gone after the block."""
    here = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="edit-transfer-") as folder:
        for package in PACKAGES:
            shutil.copytree(here / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__", ".*"))
        yield Path(folder)


def dependencies() -> list[str]:
    """What this installation depends on, pinned to what is installed, without Ray.

    Raises UsageError if the project is not installed, or one of its dependencies.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    pinned: dict[str, str] = {}
    waiting, seen = [(DISTRIBUTION, "")], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        pinned[name] = Version(_installed(name).version).public
        for needed in map(Requirement, _installed(name).requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                wanted = {(_plain(needed.name), each) for each in ("", *needed.extras)}
                waiting += wanted - seen if needed.name != THE_CLUSTERS else ()
                seen |= wanted
    del pinned[DISTRIBUTION]
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]


def _installed(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UsageError(f"{name} is not installed here, so its version cannot be told to the cluster.") from None


def _plain(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(runtime_environment(os.environ)))
