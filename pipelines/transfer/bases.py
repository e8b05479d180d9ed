"""Bases: pretrained models in diffusers folders, by path or Hub id. A base is data; none is special here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from infra.errors import BaseNotFound, UsageError
from pipelines.transfer.family import Family
from pipelines.transfer.flux1 import GUIDANCE, Flux1, Positions
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import Attention
from pipelines.tuning import Tuning

BUNDLED = Path(__file__).parent / "bases" / "miniature"
PARTS = ("transformer", "vae", "scheduler")
PROMPT = "prompt.safetensors"  # in a base's folder: the text that it is used with
STEPS_DISTILLED = 4
ADAPTER_RATE, ADAPTER_STEPS = 2e-4, 500  # common for LoRA on FLUX-class bases


class Kind(NamedTuple):
    """What goes with the class of a transformer."""

    family: Callable[..., Family]
    vae: str  # its class in diffusers
    steps: int  # where the base's own folder says nothing


KINDS = {
    "Flux2Transformer2DModel": Kind(Flux2, "AutoencoderKLFlux2", 28),
    "FluxTransformer2DModel": Kind(Flux1, "AutoencoderKL", 35),
}


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """How a base likes to be used, from `edit_transfer.json` in its folder, else from what its configs say."""

    steps: int
    attention: Attention
    max_area: int  # pixels
    adapter_rate: float  # learning rate of LoRA on it
    adapter_steps: int  # of training a LoRA on few pairs
    rehearsal: tuple[str, ...]  # families of procedural scenes that it was trained on and adapters shall not spoil


def find_base(base: str | Path | None, *, weights: bool = True) -> Path:
    """The local folder of a base: the bundled one for None, a path, or a Hub id fetched into the Hub's cache, without
    its weights if so asked.

    Raises:
        BaseNotFound: no such folder, the Hub does not give it, or its transformer or VAE is of an unknown class.
    """
    folder = BUNDLED if base is None else Path(base)
    if not folder.is_dir():
        folder = _fetch(str(base), weights)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise BaseNotFound(
            f"The base {base or 'bundled with this project'} has no {' and no '.join(missing)} folder. Give a"
            " diffusers folder with transformer, vae and scheduler, or a Hub id."
        )
    kind = KINDS.get(str(class_of(folder)))
    if class_of(folder) is None:
        raise BaseNotFound(
            f"The base {folder.name} has no transformer/config.json that names a class. Copy it again, complete."
        )
    if kind is None:
        raise BaseNotFound(
            f"The transformer of base {folder.name} is a {class_of(folder)}; known are {', '.join(KINDS)}."
        )
    vae = _read_json(folder / "vae" / "config.json").get("_class_name")
    if vae != kind.vae:
        raise BaseNotFound(
            f"The VAE of base {folder.name} is of class {vae}, but a {class_of(folder)} needs {kind.vae}. Take both"
            " from one base."
        )
    return folder


def class_of(folder: Path) -> str | None:
    """The class of a base's transformer, as its configuration names it."""
    return _read_json(folder / "transformer" / "config.json").get("_class_name")


def text_widths(folder: Path) -> tuple[int, int | None]:
    """Channels of the prompt embeddings that a base takes, and of the pooled ones, None where it takes none."""
    config = _read_json(folder / "transformer" / "config.json")
    return int(config.get("joint_attention_dim", 0)), config.get("pooled_projection_dim")


def prompt_file(folder: Path) -> Path | None:
    """The file with the text that a base is used with, None where it brings none."""
    return folder / PROMPT if (folder / PROMPT).is_file() else None


def _fetch(hub_id: str, weights: bool) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise BaseNotFound(f"There is no base at {hub_id}. Give a diffusers folder or a Hub id such as owner/name.")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", PROMPT, *(f"{part}/*" for part in PARTS if weights)]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the Hub client raises many kinds: offline, unknown, gated
        raise BaseNotFound(
            f"The base {hub_id} is neither a folder here nor could it be fetched from the Hub"
            f" ({type(error).__name__}). Check the name, your network and your access, and that HF_HOME can be written."
        ) from error


def revision_of(base: str | Path | None) -> str:
    """Hex SHA-256 over everything that decides a base's pixels: configs and weights of its three parts, and what is
    unusual about how it is run."""
    folder, digest = find_base(base), hashlib.sha256()
    for part in PARTS:
        for path in sorted((folder / part).rglob("*")):
            if path.suffix in (".json", ".safetensors"):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    if unusual := unusual_of(folder):
        digest.update(json.dumps(unusual, sort_keys=True).encode())
    return digest.hexdigest()


def unusual_of(folder: Path) -> dict[str, Any]:
    """How a FLUX.1 base is run if not as FLUX.1-dev: arguments of its family. Raises BaseNotFound."""
    if class_of(folder) != "FluxTransformer2DModel":
        return {}
    told = _read_json(folder / "edit_transfer.json")
    kontext = _read_json(folder / "model_index.json").get("_class_name") == "FluxKontextPipeline"
    positions, guidance = told.get("positions", "kontext" if kontext else "canvas"), told.get("guidance", GUIDANCE)
    if positions not in get_args(Positions):
        raise BaseNotFound(
            f"edit_transfer.json of base {folder.name} says positions are {positions!r}; they can be"
            f" {' or '.join(get_args(Positions))}."
        )
    if isinstance(guidance, bool) or not isinstance(guidance, int | float):
        raise BaseNotFound(f"edit_transfer.json of base {folder.name} says guidance is {guidance!r}; give a number.")
    ways = {"positions": positions, "guidance": float(guidance)}
    return {name: way for name, way in ways.items() if way not in ("canvas", GUIDANCE)}


def settings_of(folder: Path) -> BaseSettings:
    """Steps, attention and area a base is used with unless the user says otherwise."""
    told = _read_json(folder / "edit_transfer.json")
    side = _read_json(folder / "vae" / "config.json").get("sample_size", 1024)
    cached = _is_cached(folder)
    return BaseSettings(
        steps=told.get("steps", STEPS_DISTILLED if is_distilled(folder) else KINDS[str(class_of(folder))].steps),
        attention=told.get("attention", "joint" if cached else "prefix"),
        max_area=told.get("max_area", side * side),
        adapter_rate=told.get("adapter_rate", ADAPTER_RATE),
        adapter_steps=told.get("adapter_steps", ADAPTER_STEPS),
        rehearsal=tuple(told.get("rehearsal", ())),
    )


def is_distilled(folder: Path) -> bool:
    """Whether a base says of itself that it was distilled to few steps."""
    return _is_cached(folder) or bool(_read_json(folder / "model_index.json").get("is_distilled", False))


def _is_cached(folder: Path) -> bool:
    """Whether it was trained with joint attention; such bases are distilled."""
    return _read_json(folder / "model_index.json").get("_class_name") == "Flux2KleinKVPipeline"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise BaseNotFound(
            f"{path.parent.name}/{path.name} of the base is no JSON ({error}). Copy it again."
        ) from error


def check_tuning(folder: Path, tuned: Tuning) -> None:
    """Raise UsageError or BaseNotFound for what a base cannot be run with, as far as its configuration tells."""
    if tuned.step_cache == "magcache":
        residuals_of(folder)
    if tuned.step_cache == "first-block" and class_of(folder) != "FluxTransformer2DModel":
        raise UsageError(
            f"--step-cache first-block does not work on a {class_of(folder)}: diffusers' hook cannot follow text and"
            " image into one stream. Use taylorseer."
        )


def residuals_of(folder: Path) -> tuple[float, ...]:
    """How the blocks' residual of a base changes from step to step, for the step cache `magcache`.

    As `residuals` of its `edit_transfer.json` say, else, for FLUX.1, as diffusers has them.

    Raises:
        BaseNotFound: nobody has measured that for this base.
    """
    told = _read_json(folder / "edit_transfer.json").get("residuals")
    if told is None and class_of(folder) == "FluxTransformer2DModel":
        from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

        told = FLUX_MAG_RATIOS.tolist()
    if not isinstance(told, list) or not told or not all(isinstance(each, int | float) for each in told):
        raise BaseNotFound(
            f"--step-cache magcache needs to know base {folder.name}: a list `residuals` in its edit_transfer.json, as"
            " diffusers' MagCacheConfig(calibrate=True) measures it. taylorseer needs none."
        )
    return tuple(map(float, told))
