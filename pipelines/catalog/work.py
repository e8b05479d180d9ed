"""What decides a result: the recipe of a job, and from it the seed and the work id of every image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines import adapters
from pipelines.adapters import Worn
from pipelines.texts import Text

if TYPE_CHECKING:
    from pipelines.transfer.layout import Attention


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the image that decides a result.

    revision  digest of the base's weights; `base` is only its name and decides nothing
    adapter   digests and scales of the adapters, None where pairs alone show the edit; `adapter_name` and
              `adapter_version` (None for several) are only what they are called
    prompt    sha256 of precomputed prompt embeddings, None without
    pairs     sha256 of the before and the after file of each pair
    format    output format, None for the input's own; decides the file, but not the pixels
    restore   results in full resolution (`pipelines.restore`); decides the file, but not what the base makes
    seed      the number given by the user, from which every image's own seed is derived
    compact   by how much the sides of pairs have fewer tokens than those of the image
    tuning    what of how the base is run changes results (`Tuning.mark`), None for nothing
    """

    base: str
    revision: str
    pairs: tuple[tuple[str, str], ...]
    attention: "Attention"
    max_area: int
    steps: int
    seed: int = 0
    format: str | None = None
    adapter: str | None = None
    adapter_name: str | None = None
    adapter_version: int | None = None
    prompt: str | None = None
    restore: bool = False
    compact: int = 1
    tuning: str | None = None

    @lru_cache(maxsize=1024)  # noqa: B019  recipes are few and small
    def digest(self) -> str:
        """sha256 over what decides the result files."""
        told = (self.pixels_digest(), self.format)
        return _digest(*told, "restore") if self.restore else _digest(*told)

    @lru_cache(maxsize=1024)  # noqa: B019
    def pixels_digest(self) -> str:
        """sha256 over what decides the pixels that the base makes."""
        deciding = asdict(self)
        for only_told in ("base", "format", "restore", "adapter_name", "adapter_version"):
            del deciding[only_told]
        if self.prompt is None:  # as before there were prompts: finished work stays finished
            del deciding["prompt"]
        if self.compact == 1:
            del deciding["compact"]
        if self.tuning is None:
            del deciding["tuning"]
        return _digest(deciding)

    def seed_for(self, input_sha256: str) -> int:
        """63 bits: the same for the same image and edit, whatever the order, the batch, the file format or the tuning,
        which then differs by what it costs and not by its noise."""
        plain = replace(self, tuning=None) if self.tuning else self
        return int(_digest(input_sha256, plain.pixels_digest())[:16], 16) >> 1

    def work_id(self, input_sha256: str | None) -> str:
        """Names one piece of work: these bytes, this recipe. None stands for an input that was not read."""
        return _digest(input_sha256, self.digest())


def recipe_of(
    worn: Sequence[Worn],
    pairs: Sequence[tuple[str, str]],
    *,
    base: str,
    revision: str,
    attention: "Attention",
    max_area: int,
    steps: int,
    seed: int = 0,
    format: str | None = None,
    restore: bool = False,
    prompt: str | None = None,
    tuning: str | None = None,
) -> Recipe:
    """The recipe of an edit with these adapters and digests of pairs, the adapters' own first.

    `attention` is the base's own: an adapter that was trained with another decides, as it does how compact pairs are.
    The job and the endpoint both make their recipes here, so that both derive the same seeds.
    """
    return Recipe(
        base=base,
        revision=revision,
        pairs=tuple(pairs),
        attention=next((each.attention for each in worn if each.attention), attention),
        max_area=max_area,
        steps=steps,
        seed=seed,
        format=format,
        restore=restore,
        prompt=prompt,
        compact=compact_of(worn),
        tuning=tuning,
        **adapters.named(worn),
    )


def compact_of(worn: Sequence[Worn]) -> int:
    """How compact pairs are with these adapters, which agree on it; in full without any."""
    return worn[0].compact if worn else 1


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def _digest(*parts: object) -> str:
    return sha256(json.dumps(parts, sort_keys=True).encode())


@dataclass(frozen=True)
class Variant:
    """The edit that an image gets, with what it takes to do it: the job's own, or what its row of a table asks for.

    pairs   (before, after) URIs of the row's own pair, () for the job's; digests of both are in the recipe
    text    its prompt embeddings, None for none
    """

    recipe: Recipe
    worn: tuple[Worn, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    text: Text | None = None
