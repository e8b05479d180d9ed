"""From what a training left to a version in the registry: adapter.json, card, samples, pairs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from infra import registry, store
from infra.errors import PairError
from infra.registry import Version
from infra.registry.layout import PROMPT
from pipelines import texts
from pipelines.transfer import bases
from training.fit.run import Fitted
from training.fit.settings import Settings
from pipelines.pairs.check import Pair

HOW = ("workers", "precision", "checkpointing")  # settings of the machine: elsewhere it is still the same work


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training, before it is done. `base` as asked for; `kept` are pairs of other edits; `judged` are pairs that it
    must not see, because it will be judged by them."""

    name: str
    base: str | None
    settings: Settings
    pairs: tuple[Pair, ...]
    kept: tuple[Pair, ...]
    judged: tuple[Pair, ...] = ()

    @property
    def publication(self) -> str:
        """Names this piece of work: the same base, pairs and settings are the same adapter."""
        deciding: dict[str, Any] = {
            "name": self.name,
            "revision": bases.revision_of(self.base),
            "pairs": sorted((pair.digest, pair.name) for pair in self.pairs),
            "judged": sorted(pair.digest for pair in self.judged),
            "kept": sorted(pair.digest for pair in self.kept),
            "settings": {key: value for key, value in asdict(self.settings).items() if key not in HOW},
        }
        if self.settings.compact == 1:  # as before there was such a setting: finished work stays finished
            del deciding["settings"]["compact"]
        if text := texts.of_base(bases.find_base(self.base)):
            deciding["prompt"] = text.sha256
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def publish(address: str, work: Work, fitted: Fitted, seconds: float) -> Version:
    """Write the version. Published again, it is the version that is there already.

    Raises:
        PairError: a picture was changed while training went on.
        StoreError: the registry cannot be written.
    """
    pairs, files = _pair_files(work, fitted)
    about = _about(work, fitted, pairs, seconds)
    files |= {
        "adapter.safetensors": fitted.weights,
        "samples.png": fitted.samples,
        "card.md": _card(work.name, about).encode(),
    }
    if prompt := bases.prompt_file(bases.find_base(work.base)):
        files[PROMPT] = prompt.read_bytes()  # it was trained with that text, and is used with it on every twin
    return registry.publish(address, work.name, files, about, publication=work.publication)


def _pair_files(work: Work, fitted: Fitted) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What adapter.json says of each pair, and the pairs' files as they were found, or as they were mended."""
    roles = dict.fromkeys(fitted.outcome["held_out"], "held_out") | {pair.digest: "judged" for pair in work.judged}
    told: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for index, pair in enumerate([*work.pairs, *work.judged]):
        taken = {each["name"] for each in told}  # pairs of an earlier version may be called as new ones are
        names = (f"{pair.name} ({number})" if number > 1 else pair.name for number in itertools.count(1))
        name = next(name for name in names if name not in taken)
        entry: dict[str, Any] = {"name": name, "edit": pair.edit, "digest": pair.digest}
        entry["role"] = roles.get(pair.digest, "train")
        if pair.mended:
            entry["mended_from"] = list(pair.mended)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", pair.name).strip("-.")[-60:]
        for role, (suffix, data), sha256 in zip(("before", "after"), _stored(pair), pair.sha256, strict=True):
            path = f"pairs/{index:03d}-{plain}_{role}{suffix}"
            files[path] = data
            entry |= {role: path, f"{role}_sha256": sha256}
        told.append(entry)
    return told, files


def _stored(pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of both files: as they lie there, or as they were mended from what lies there."""
    for side, uri in enumerate(pair.uris):
        data = store.read(uri)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 == pair.sha256[side]:
            yield PurePosixPath(uri).suffix.lower(), data
        elif pair.mended and sha256 == pair.mended[side]:
            yield ".png", pair.files()[side]
        else:
            raise PairError(f"{uri} was changed while the adapter was trained. Run the same command again.")


def _about(work: Work, fitted: Fitted, pairs: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Everything that adapter.json says beside what the registry adds."""
    outcome, folder = fitted.outcome, bases.find_base(work.base)
    edits = sorted({pair.edit for pair in work.pairs})
    first, *_ = curve = [_plain(point) for point in outcome["curve"]]
    return {
        "base": {
            "name": work.base or folder.name,
            "revision": bases.revision_of(work.base),
            "class": bases.class_of(folder),
        },
        "attention": work.settings.attention,
        **({"compact": work.settings.compact} if work.settings.compact > 1 else {}),
        "rank": work.settings.rank,
        "edits": edits,
        "pairs": pairs,
        "exemplars": _exemplars(outcome, pairs, work.settings.shown) if len(edits) == 1 else [],
        "scores": outcome["score"]
        | {"base_balanced": first["balanced"], "base_changed": first["changed"]}
        | {"held_out_pairs": len(outcome["held_out"])},
        "training": {
            "settings": asdict(work.settings),
            "steps_taken": curve[-1]["step"],
            "samples": outcome["samples"],
            "seconds": round(seconds, 1),
            "kept": len(work.kept),
            "curve": curve,
        },
    }


def _exemplars(outcome: dict[str, Any], pairs: Sequence[dict[str, Any]], count: int) -> list[str]:
    """The pairs that were shown when the adapter was judged: with them it does what its score says."""
    names = {pair["digest"]: pair["name"] for pair in pairs}
    return [names[digest] for digest in outcome["shown"] if digest in names][:count]


def _plain(point: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in point.items()}


def _card(name: str, about: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("training.fit", "."), undefined=StrictUndefined, keep_trailing_newline=True
    )
    told = about | {"name": name, "settings": about["training"]["settings"], "curve": about["training"]["curve"]}
    roles = {
        "trained": [pair for pair in about["pairs"] if pair["role"] == "train"],
        "held_out": [pair for pair in about["pairs"] if pair["role"] == "held_out"],
    }
    return environment.get_template("card.md.j2").render(told | roles)
