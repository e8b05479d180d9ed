"""Adapters as PEFT itself writes them: a folder with the matrices in one file, and what they mean in another."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from infra.errors import AdapterNotFound

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")  # how files end that run code when they are read
KEYS = "base_model.model."  # how keys begin that PEFT itself wrote
ALPHA = {"LORA": "lora_alpha", "LOKR": "alpha", "LOHA": "alpha"}  # kinds that are known: what each calls its alpha
FIRST = (".lokr_w1", ".lokr_w1_a", ".hada_w1_a")  # one factor of each product, into which its strength goes
UNKNOWN = {  # settings that change what an adapter computes, and how to say so
    "use_dora": "it is a DoRA",
    "modules_to_save": "it replaces whole layers (modules_to_save)",
    "layer_replication": "it repeats layers of the base (layer_replication)",
    "lora_bias": "it has biases of its own (lora_bias)",
    "trainable_token_indices": "it changes tokens of a text encoder (trainable_token_indices)",
    "target_parameters": "it changes parameters that are no linear layers (target_parameters)",
    "use_qalora": "it is a QALoRA (use_qalora)",
    "use_bdlora": "it is a BD-LoRA (use_bdlora)",
    "alora_invocation_tokens": "it is an aLoRA (alora_invocation_tokens)",
    "arrow_config": "it is routed by Arrow (arrow_config)",
    "kasa_config": "it is a KaSA (kasa_config)",
    "monteclora_config": "it is a MonteCLoRA (monteclora_config)",
    "velora_config": "it is a VeLoRA (velora_config)",
}
MOVED = ("pissa", "olora", "corda", "loftq", "lora_ga")  # ways to begin that change the weights of the base


def weights_in(path: Path) -> Path:
    """The file that holds an adapter's matrices: the path itself, or the one in a folder of PEFT or diffusers.

    Raises:
        AdapterNotFound: the folder has none, or several.
    """
    if not path.is_dir():
        return path
    if (path / WEIGHTS).exists():
        return path / WEIGHTS
    found = sorted(path.glob("*.safetensors")) or sorted(each for each in path.iterdir() if each.suffix in PICKLES)
    if len(found) == 1:
        return found[0]
    raise AdapterNotFound(
        f"The folder {path} holds {f'{len(found)} files' if found else 'no file'} of weights and no {WEIGHTS}."
        " Give the .safetensors file of the adapter."
    )


def baked(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What PEFT wrote, without the beginning of its keys and with the strength that its config tells: as an alpha for
    each layer of a LoRA, multiplied into a factor of a LoKr or LoHa.

    Args:
        path: of the weights' file, beside which the config is.

    Raises:
        AdapterNotFound: there is no config, or it is broken.
        ValueError: it tells of something that is not known here, or of other ranks than the file has.
    """
    config = _config(path)
    kind = str(config.get("peft_type", "LORA")).upper()
    _check(config, kind)
    ours = {key.removeprefix(KEYS): weight for key, weight in weights.items()}
    if kind == "LORA":
        downs = {key: len(weight) for key, weight in ours.items() if key.endswith(".lora_A.weight")}
        return ours | {
            f"{layer}.alpha": torch.tensor(strength(layer, rank, config) * rank, dtype=torch.float64)
            for layer, rank in ((key.removesuffix(".lora_A.weight"), rank) for key, rank in downs.items())
        }
    return {key: _stronger(key, weight, config) if key.endswith(FIRST) else weight for key, weight in ours.items()}


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path.parent / CONFIG).read_bytes())
    except FileNotFoundError:
        raise AdapterNotFound(
            f"The adapter {path.name} was saved by PEFT, whose file does not say its alpha, and there is no {CONFIG}"
            " beside it, which does. Give the whole folder that PEFT wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise AdapterNotFound(f"The {CONFIG} beside {path.name} is broken ({error}). Copy it again.") from error
    if not isinstance(config, dict):
        raise AdapterNotFound(f"The {CONFIG} beside {path.name} is broken: it is no object. Copy it again.")
    return config


def _check(config: Mapping[str, Any], kind: str) -> None:
    """Raise ValueError for what would be worn otherwise than it was trained."""
    if kind not in ALPHA:
        raise ValueError(f"it is of PEFT's type {kind}, which cannot become a LoRA")
    if told := next((UNKNOWN[name] for name in UNKNOWN if config.get(name)), None):
        raise ValueError(f"{told}, which a plain LoRA cannot say")
    if config.get("bias", "none") != "none":
        raise ValueError(f"it changes biases of the base (bias is {config['bias']}), which a plain LoRA cannot say")
    begun = str(config.get("init_lora_weights", "")).lower()
    if begun.startswith(MOVED):
        raise ValueError(
            f"it began with {begun}, which changes the base as well; convert it to a plain LoRA when it is saved"
            " (path_initial_model_for_weight_conversion of PEFT)"
        )


def _stronger(key: str, weight: Tensor, config: Mapping[str, Any]) -> Tensor:
    layer = key.rpartition(".")[0]
    alpha, rank = _told(layer, "alpha", config), _told(layer, "r", config)
    return (weight.float() * _positive(alpha / rank if rank else math.nan, layer)).to(weight.dtype)


def strength(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """How PEFT scales a layer's LoRA; 1 where there are no settings. Raises ValueError for settings that make no sense,
    or that tell of another rank."""
    if not settings:
        return 1.0
    told = _told(layer, "r", settings)
    if "r" in settings and told != rank:
        raise ValueError(f"{layer} is of rank {rank}, and {told:g} by its settings")
    alpha = _told(layer, "lora_alpha", settings)
    return _positive(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank), layer)


def check_strengths(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of PEFT that would make a LoRA infinitely strong, or not a number."""
    special = settings.get("alpha_pattern") or {}
    for alpha in (settings.get("lora_alpha", 8), *special.values()):
        _positive(_number(alpha, "lora_alpha"), "it")


def _told(layer: str, name: str, settings: Mapping[str, Any]) -> float:
    """`r` or an alpha of a layer: what a pattern says that matches its name as PEFT matches it, or what holds for all,
    8 by default."""
    from peft.utils.other import get_pattern_key

    patterns = settings.get("rank_pattern" if name == "r" else "alpha_pattern") or {}
    try:
        told = patterns.get(get_pattern_key(list(patterns), layer), settings.get(name, 8))
    except (re.error, TypeError, AttributeError) as error:
        raise ValueError(f"a pattern of its settings is broken ({error})") from None
    return _number(told, name)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r} in its settings, which is no number")
    return value


def _positive(strength: float, layer: str) -> float:
    if not 0 < strength < math.inf:
        raise ValueError(f"an alpha in its settings makes {layer} {strength:g} times as strong, which makes no sense")
    return strength
