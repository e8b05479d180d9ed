"""Adapters under any tool's names and of any kind become LoRAs under our names, and those become ai-toolkit's.

Letters: R rank, I width of a layer's input, O of its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.transfer import factors, names, peftfile
from pipelines.transfer.factors import EXACT, Change, Loss, Pair

if TYPE_CHECKING:
    from pipelines.transfer.lorafile import Transformer

Weights = dict[str, Tensor]  # key in an adapter's file: what it holds


def to_ours(transformer: Transformer, weights: Weights) -> Weights:
    """An adapter under other names as `LAYER.lora_A.weight` (R, I) and `LAYER.lora_B.weight` (O, R) of our layers, of
    rank `EXACT` at most where it is no LoRA yet; see `converted`."""
    return converted(transformer, weights)[0]


def converted(transformer: Transformer, weights: Weights, rank: int | None = None) -> tuple[Weights, list[Loss]]:
    """An adapter under other names as `LAYER.lora_A.weight` (R, I) and `LAYER.lora_B.weight` (O, R) of our layers.

    What was stacked is cut: each of the layers gets those ranks that reach it, none if none does. Alpha is multiplied
    into the matrices; where the file says none, alpha is the rank.

    Args:
        rank: up to which a LoKr or LoHa becomes a LoRA. With one, what is of more becomes the best LoRA of it.

    Returns:
        The LoRA, and with `rank` what each of its layers lost.

    Raises:
        ValueError: a weight is not part of a LoRA, LoKr or LoHa, of another width, there twice, its alpha makes no
            sense, or it is of a higher rank than `EXACT` and none is asked for.
    """
    if odd := next((key for key in weights if not names.KEY.fullmatch(key)), None):
        raise ValueError(f"it holds {odd}, which is no matrix of a LoRA")
    changes = {name: _change(name, parts) for name, parts in names.grouped(weights).items()}
    if rank is None:
        _check_ranks(changes)
    ours: Weights = {}
    losses: list[Loss] = []
    for name, change in changes.items():
        for layer, pair, whole_OI in _homed(transformer, name, change, rank or EXACT):
            if f"{layer}.lora_A.weight" in ours:
                raise ValueError(f"{layer} is there twice, under different names")
            ours |= _entries(layer, pair)
            if rank:
                losses.append(factors.loss_of(layer, pair, whole_OI))
    return ours, losses


def _change(name: str, parts: Mapping[str, Tensor]) -> Change:
    try:
        return factors.change_of(parts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_ranks(changes: Mapping[str, Change]) -> None:
    name = max(changes, key=lambda name: 0 if changes[name].plain else changes[name].rank)
    if not changes[name].plain and changes[name].rank > EXACT:
        raise ValueError(
            f"as a LoRA it would be of rank {changes[name].rank} ({name}), and only up to {EXACT} is it taken over as"
            " it is. Ask for the best LoRA of a lower rank with --rank 64, for example; how far off that is is told"
        )


def _homed(transformer: Transformer, name: str, change: Change, most: int) -> Iterator[tuple[str, Pair, Tensor | None]]:
    """A change of a layer under any name as a pair for each of our layers that is stacked in it, and where the pair is
    not all of it, the whole."""
    modules: dict[str, Any] = dict(transformer.named_modules())
    homes = names.spelled(type(transformer).__name__, name)
    widths = [modules[home].out_features for home in homes]
    swap = name.replace("_", ".") == names.MODULATION.replace("_", ".")
    if change.plain or change.rank <= most:
        pair = change.pair()
        if swap:
            pair = pair._replace(up_OR=_swapped(pair.up_OR))
        for home, cut in _cut(pair, homes, widths):
            yield home, cut, None
        return
    whole_OI = change.whole()
    _check_width(len(whole_OI), homes, widths)
    for home, rows_OI in zip(homes, (_swapped(whole_OI) if swap else whole_OI).split(widths), strict=True):
        yield home, factors.truncated(rows_OI, most, change.dtype), rows_OI


def to_ai_toolkit(kind: str, weights: Weights, settings: Mapping[str, Any]) -> Weights:
    """A LoRA under our names as ai-toolkit writes it, which ComfyUI reads: alpha is the rank, and for FLUX.2 the names
    are BFL's.

    Layers that BFL stack become one whose rank is the sum of theirs, with a block-diagonal B, which computes the same;
    if all have the same A, it is kept and the rank as well. `to_ours` takes both apart again.

    Args:
        kind: class of the transformer, one of `BFL`.
        settings: of PEFT, as the file's metadata tells them without prefix; empty if it tells none.

    Raises:
        ValueError: it is more than pairs of matrices under our names, a DoRA for example.
    """
    if odd := next((key for key in weights if not names.layers(kind, key) or names.foreign(kind, [key])), None):
        raise ValueError(f"it holds {odd}, for which that format has no place")
    pairs = {
        layer: factors.scaled(pair, peftfile.strength(layer, len(pair.down_RI), settings))
        for layer, matrices in names.grouped(weights).items()
        for pair in [Pair(matrices["A"], matrices["B"])]
    }
    if kind == "FluxTransformer2DModel":
        return _all_entries({f"transformer.{layer}": pair for layer, pair in pairs.items()})
    return _all_entries({f"diffusion_model.{name}": pair for name, pair in _to_bfl(kind, pairs)})


def _to_bfl(kind: str, pairs: Mapping[str, Pair]) -> Iterator[tuple[str, Pair]]:
    homes = {layer: name for name, layers in names.BFL[kind].items() for layer in layers}
    wanted = {(homes[pattern], number): None for pattern, number in map(names.numbered, pairs)}  # in order, each once
    for name, number in wanted:
        stacked = factors.stacked([pairs.get(layer.format(number)) for layer in names.BFL[kind][name]])
        if name == names.MODULATION:
            stacked = stacked._replace(up_OR=_swapped(stacked.up_OR))
        yield name.format(number), stacked


def _cut(pair: Pair, homes: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, Pair]]:
    """One pair for each of the layers that are stacked in a layer."""
    _check_width(len(pair.up_OR), homes, widths)
    idle = len(homes) == 1 or not pair.up_OR.any()
    for home, up_OR in zip(homes, pair.up_OR.split(list(widths)), strict=True):
        reaching = torch.ones_like(up_OR[0], dtype=torch.bool) if idle else up_OR.any(0)
        if reaching.any():
            yield home, Pair(pair.down_RI[reaching], up_OR[:, reaching])


def _check_width(width: int, homes: Sequence[str], widths: Sequence[int]) -> None:
    if sum(widths) != width:
        raise ValueError(f"{' + '.join(homes)} is {sum(widths)} wide in this base, and {width} in the adapter")


def _swapped(up_OR: Tensor) -> Tensor:
    return torch.cat(up_OR.chunk(2)[::-1])


def _entries(layer: str, pair: Pair) -> Weights:
    return {f"{layer}.lora_{letter}.weight": matrix.contiguous() for letter, matrix in zip("AB", pair, strict=True)}


def _all_entries(pairs: Mapping[str, Pair]) -> Weights:
    return {key: matrix for layer, pair in pairs.items() for key, matrix in _entries(layer, pair).items()}
