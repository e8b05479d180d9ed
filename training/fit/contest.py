"""A candidate against production, on pairs that neither has seen, each as it would be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from infra import cluster, registry, store
from infra.errors import AdapterDamaged, EditTransferError, ImageError
from infra.registry import Version
from infra.settings import Settings as Environment
from pipelines import adapters, texts
from pipelines.adapters import Worn
from pipelines.pairs.check import Pair, decoded
from pipelines.pairs.stored import SHOWN
from training.fit.judge import Trial, judge, trials
from training.fit.publishing import Work


@dataclass(frozen=True)
class Result:
    """Balanced PSNR in dB of both, and the names of the pairs they were judged by."""

    candidate: float
    rival: float
    judged: tuple[str, ...]


def hold(candidate: Version, production: Version | None, work: Work, environment: Environment) -> Result:
    """Judge both on the work's judged pairs, on the cluster; without production the base alone is the rival.

    Raises:
        AdapterDamaged: what is stored is not what was published.
        EditTransferError: the cluster does not answer.
    """
    import ray

    shown = work.settings.shown
    tried = trials(work.judged, _shown_by(candidate, environment), shown)
    rivals = trials(work.judged, _shown_by(production, environment), shown) if production else tried
    with cluster.speaking_aside(), cluster.connected(1, environment.ray) as resources:
        score = ray.remote(num_cpus=1, num_gpus=min(1, resources.gpus))(_score)
        entrants = ((candidate, tried), (production, rivals))
        try:
            candidate_score, rival_score = ray.get(
                [score.remote(work.base, version, asked, environment.cache) for version, asked in entrants]
            )
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # what the task raised; Ray's own text is a whole traceback
            if isinstance(cause, EditTransferError):
                raise cause from None
            reason = str(error).strip().splitlines()[-1]
            raise EditTransferError(f"The judging broke: {reason} Run the same command again.") from error
    return Result(candidate_score, rival_score, judged=tuple(trial.asked.name for trial in tried))


def _score(base: str | None, version: Version | None, tried: Sequence[Trial], cache: str) -> float:
    from pipelines.transfer import Editor

    worn = [Worn(version)] if version else []
    attention, compact = (worn[0].attention, worn[0].compact) if worn else (None, 1)
    loras, text = adapters.loras(worn, Path(cache)), texts.usual(worn, base)
    editor = Editor.load(base, adapter=loras, attention=attention, prompt_embeds=text, compact=compact)
    return judge(editor, tried).score.balanced


def _shown_by(version: Version, environment: Environment) -> list[Pair]:
    """The pairs that a version shows by default, or all it was trained on where it does several edits."""
    exemplars = set(version.about["exemplars"])
    known = [pair for pair in version.about["pairs"] if pair["role"] in ("train", SHOWN)]
    return _read(version, [pair for pair in known if pair["name"] in exemplars] or known, environment.max_pixels)


def pairs_of(version: Version, max_pixels: int) -> list[Pair]:
    """All pairs of a version, as they were published with it. Raises AdapterDamaged."""
    return _read(version, version.about["pairs"], max_pixels)


def _read(version: Version, told: Sequence[dict[str, Any]], max_pixels: int) -> list[Pair]:
    return [
        Pair(
            name=pair["name"],
            edit=pair["edit"],
            before=_picture(version, pair["before"], max_pixels),
            after=_picture(version, pair["after"], max_pixels),
            uris=(store.join(version.uri, pair["before"]), store.join(version.uri, pair["after"])),
            sha256=(pair["before_sha256"], pair["after_sha256"]),
            mended=(pair["mended_from"][0], pair["mended_from"][1]) if "mended_from" in pair else None,
        )
        for pair in told
    ]


def _picture(version: Version, path: str, max_pixels: int) -> Image.Image:
    try:
        return decoded(registry.read_file(version, path), max_pixels)
    except ImageError as error:
        raise AdapterDamaged(f"{version.ref}: {path} can no longer be read: {error}") from None
