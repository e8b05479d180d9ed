"""Adapters as people name them, `lift-arms@production` or `shine@2:0.7`: found, checked, copied here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import registry
from infra.errors import AdapterDamaged, AdapterNotFound, UsageError
from infra.registry import Version
from infra.registry.layout import PROMPT, WEIGHTS

if TYPE_CHECKING:
    from pipelines.transfer import Lora
    from pipelines.transfer.layout import Attention


@dataclass(frozen=True)
class Worn:
    """A version that is used, and how strongly it counts (1 as trained)."""

    version: Version
    scale: float = 1.0

    @property
    def told(self) -> str:
        """For people: `name@3`, `name@3:0.7`."""
        return self.version.ref if self.scale == 1 else f"{self.version.ref}:{self.scale:g}"

    @property
    def digest(self) -> str:
        """What decides pixels: the version's digest, and the scale unless it is 1."""
        return self.version.digest if self.scale == 1 else f"{self.version.digest}:{self.scale:g}"

    @property
    def attention(self) -> Attention | None:
        """The attention that it was trained with, None where nobody knows."""
        return self.version.about.get("attention")

    @property
    def compact(self) -> int:
        """By how much the sides of its pairs had fewer tokens than those of its queries when it was trained."""
        return self.version.about.get("compact", 1)

    @property
    def prompt(self) -> str | None:
        """sha256 of the prompt embeddings that come with it, None where none do."""
        return self.version.files.get(PROMPT, {}).get("sha256")


def find(address: str, refs: Sequence[str], scale: float, revision: str) -> list[Worn]:
    """The versions that refs mean now, for a base of this revision; `scale` counts for all of them.

    Raises:
        UsageError: a scale that is no number, or adapters that cannot be worn together.
        AdapterNotFound: there is no such adapter, or it was trained on another base, of which this is no twin.
        AdapterDamaged: what is stored is not what was published.
    """
    worn = [_found(address, ref, scale) for ref in refs]
    for each in worn:
        check_fit(address, each.version, revision)
    if len({each.attention for each in worn} - {None}) > 1:
        told = ", ".join(f"{each.version.ref} with {each.attention}" for each in worn)
        raise UsageError(f"These adapters were trained with different attention: {told}. Use one of them.")
    if len({each.compact for each in worn}) > 1:
        told = ", ".join(f"{each.version.ref} with compact {each.compact}" for each in worn)
        raise UsageError(f"These adapters were trained with pairs of different scale: {told}. Use one of them.")
    return worn


def _found(address: str, ref: str, scale: float) -> Worn:
    name, strength = strength_of(ref, scale)
    return Worn(registry.resolve(address, name), strength)


def strength_of(ref: str, scale: float) -> tuple[str, float]:
    """`shine@2:0.7` as the ref that a registry knows, and how strongly it counts. Raises UsageError."""
    name, colon, own = ref.partition(":")
    try:
        strength = float(own) * scale if colon else scale
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise UsageError(f"{ref}: the scale after the colon must be a number, as in {name}:0.7.")
    return name, strength


def check_fit(address: str, version: Version, revision: str) -> None:
    """Raise `AdapterNotFound` unless a version was trained on the base of this revision, or on one whose twin it is by
    what the registry at `address` was told; raises StoreError where that does not answer."""
    try:
        check_base(version, revision)
    except AdapterNotFound:
        if not registry.are_twins(address, version.about["base"]["revision"], revision):
            raise


def check_base(version: Version, revision: str) -> None:
    """Raise `AdapterNotFound` for a version that was trained on another base than that of this revision."""
    base = version.about.get("base", {})
    if base.get("revision") not in (None, revision):
        raise AdapterNotFound(
            f"{version.ref} was trained on another base, {base.get('name')} (revision {base['revision'][:12]}; this one"
            f" is {revision[:12]}). Name that base with --base, train the adapter on this one, or, if this one is its"
            " distilled twin, declare that with `edit-transfer bases twin`."
        )


def loras(worn: Sequence[Worn], cache: Path) -> list[Lora]:
    """Verified copies of the weights on this machine; a copy that is there already is used again.

    Raises:
        AdapterDamaged: the weights are not what was published.
        StoreError: the registry or the disk does not answer.
    """
    from pipelines.transfer import Lora

    return [
        Lora(registry.fetch(each.version, cache / each.version.digest, [WEIGHTS]) / WEIGHTS, each.scale)
        for each in worn
    ]


def named(worn: Sequence[Worn]) -> dict[str, Any]:
    """How a recipe tells which adapters it wears: `adapter` (digests and scales), `adapter_name`, `adapter_version`."""
    one = worn[0].version if len(worn) == 1 else None
    return {
        "adapter": "+".join(each.digest for each in worn) or None,
        "adapter_name": one.name if one else "+".join(each.told for each in worn) or None,
        "adapter_version": one.number if one else None,
    }


def exemplars(worn: Sequence[Worn]) -> list[tuple[str, bytes, bytes]]:
    """(name, before, after) of the pairs that show an adapter's edit by default, as files; of all adapters in turn.

    Raises:
        AdapterDamaged: a file is not what was published, or is not there.
    """
    return [
        (name, registry.read_file(version, before), registry.read_file(version, after))
        for name, version, before, after in _exemplar_files(worn)
    ]


def exemplar_digests(worn: Sequence[Worn]) -> list[tuple[str, str]]:
    """sha256 of the before and the after file of each exemplar, without reading them. Raises AdapterDamaged."""
    try:
        return [
            (version.files[before]["sha256"], version.files[after]["sha256"])
            for _, version, before, after in _exemplar_files(worn)
        ]
    except KeyError as error:
        raise AdapterDamaged(f"A pair of an adapter has no file {error}.") from None


def _exemplar_files(worn: Sequence[Worn]) -> Iterator[tuple[str, Version, str, str]]:
    """(name, version, path of before, path of after)."""
    for each in worn:
        pairs = {pair["name"]: pair for pair in each.version.about.get("pairs", ())}
        for name in each.version.about.get("exemplars", ()):
            if name not in pairs:
                raise AdapterDamaged(f"{each.version.ref} names a pair {name} that it does not have.")
            yield f"{each.version.ref} {name}", each.version, pairs[name]["before"], pairs[name]["after"]
