"""What a Ray cluster is asked for to run `apply` as a job: for `edit-transfer submit` and for the endpoint alike.

`asked` are the parameters of `apply` by name. What they name on this machine's disk cannot be seen from the cluster:
pairs and prompts are copied beside the results where those are in a bucket, and every other path is made absolute, for
disks that all machines share.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import typer
import typer.main

from infra import store
from infra.deploy import environment
from infra.errors import UsageError
from infra.settings import expanded, from_environment
from pipelines.catalog.cli import PairCommand, apply

PAIR = "--pair"
# Parameters of `apply` that name a place, and what makes a local one absolute.
PLACES = {
    "source": expanded,
    "output": expanded,
    "registry": expanded,
    "prompt": expanded,
    "base": environment.base_place,
}


def command_for(asked: Mapping[str, Any]) -> str:
    """The shell command that asks `apply` for this; what is not in `asked` is as by default."""
    words = ["python", "-m", "pipelines.catalog", "apply"]
    for option in _options():
        if option.name in asked and asked[option.name] != option.default:
            words += _words(option.opts[0], asked[option.name])
    return shlex.join(words)


@contextmanager
def environment_for(with_dependencies: bool = False) -> Iterator[dict[str, Any]]:
    """The Ray runtime environment of a job: where things are, and this project's source while the block lasts.

    With dependencies, Ray installs those of this project for the job. Raises UsageError if one is not installed here.
    """
    with environment.source() as folder:
        wanted: dict[str, Any] = environment.runtime_environment(os.environ) | {"working_dir": str(folder)}
        yield wanted | ({"pip": environment.dependencies()} if with_dependencies else {})


def seen_from_nodes(asked: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """The options as they mean the same on every machine; local pairs and prompts are copied to an output in a bucket.

    Raises UsageError for a place in this process's memory, StoreError if one of them cannot be read or copied.
    """
    seen = dict(asked)
    if seen.get("adapter") and not seen.get("registry"):
        seen["registry"] = from_environment().registry
    for name, absolute in PLACES.items():
        if seen.get(name):
            seen[name] = absolute(seen[name])
    _check_places(seen)
    if store.scheme_of(seen["output"]) != "file":
        aside = store.join(seen["output"], "jobs", job_id)
        if seen.get("prompt"):
            seen["prompt"] = _copied(seen["prompt"], store.join(aside, "prompt.safetensors"))
        pairs = enumerate(seen.get("pair") or ())
        seen["pair"] = [_copied(uri, _pair_file(aside, number, uri)) for number, uri in pairs] or None
    elif seen.get("pair"):
        seen["pair"] = [expanded(uri) for uri in seen["pair"]]
    return seen


def local_places(seen: Mapping[str, Any]) -> list[str]:
    """What the options name on a disk, which all nodes must share."""
    return [place for place in dict.fromkeys(_places(seen)) if place.startswith(("/", "file://"))]


def _check_places(seen: Mapping[str, Any]) -> None:
    if volatile := [place for place in _places(seen) if store.scheme_of(place) == "memory"]:
        raise UsageError(f"{volatile[0]}: a cluster cannot see into the memory of this process; use a folder or s3://.")


def _places(seen: Mapping[str, Any]) -> list[str]:
    return [*(seen[name] for name in PLACES if seen.get(name)), *(seen.get("pair") or ())]


def _pair_file(aside: str, number: int, uri: str) -> str:
    name = f"{number // 2 + 1}-{'after' if number % 2 else 'before'}{PurePosixPath(uri).suffix.lower()}"
    return store.join(aside, "pairs", name)


def _copied(uri: str, copy: str) -> str:
    """The address of a copy that every machine can see; the address itself where all can see that."""
    if store.scheme_of(uri) != "file":
        return uri
    store.write(copy, store.read(uri))
    return copy


@cache
def _options() -> list[Any]:
    alone = typer.Typer()
    alone.command(cls=PairCommand)(apply)
    return typer.main.get_command(alone).params


def _words(option: str, value: Any) -> list[str]:
    if value is True:
        return [option]
    if option == PAIR:
        return [word for at in range(0, len(value), 2) for word in (option, *value[at : at + 2])]
    values = value if isinstance(value, list) else [value]
    return [word for each in values for word in (option, str(each.value if isinstance(each, Enum) else each))]
