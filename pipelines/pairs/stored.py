"""Pairs as a version in the registry keeps them: their files as they were found, or as they were mended, and what
adapter.json says of each."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from infra import store
from infra.errors import PairError
from pipelines.pairs.check import Pair

SHOWN = "shown"  # role of a pair that came with an import: nobody knows whether it was trained on
Told = dict[str, Any]  # name, edit, digest, role, before, after and their sha256


def pair_files(pairs: Iterable[tuple[Pair, str]]) -> tuple[list[Told], dict[str, bytes]]:
    """What adapter.json says of pairs and their roles, and their files under the paths that it names.

    Raises:
        PairError: a picture is not any more what was checked.
        StoreError: a picture cannot be read.
    """
    told: list[Told] = []
    files: dict[str, bytes] = {}
    for index, (pair, part) in enumerate(pairs):
        taken = {each["name"] for each in told}  # pairs of an earlier version may be called as new ones are
        names = (f"{pair.name} ({number})" if number > 1 else pair.name for number in itertools.count(1))
        name = next(name for name in names if name not in taken)
        entry: Told = {"name": name, "edit": pair.edit, "digest": pair.digest, "role": part}
        if pair.mended:
            entry["mended_from"] = list(pair.mended)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", pair.name).strip("-.")[-60:]
        for role, (suffix, data), sha256 in zip(("before", "after"), _contents(pair), pair.sha256, strict=True):
            path = f"pairs/{index:03d}-{plain}_{role}{suffix}"
            files[path] = data
            entry |= {role: path, f"{role}_sha256": sha256}
        told.append(entry)
    return told, files


def _contents(pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of both files: as they lie there, or as they were mended from what lies there."""
    for side, uri in enumerate(pair.uris):
        data = store.read(uri)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 == pair.sha256[side]:
            yield PurePosixPath(uri).suffix.lower(), data
        elif pair.mended and sha256 == pair.mended[side]:
            yield ".png", pair.files()[side]
        else:
            raise PairError(f"{uri} was changed while the adapter was made. Run the same command again.")
