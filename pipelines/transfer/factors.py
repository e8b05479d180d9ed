"""What a layer's entries in an adapter's file multiply to: LoRA, and LoKr and LoHa of LyCORIS, which become LoRAs.

The conventions are those of the LyCORIS library (arXiv 2309.14859), which ai-toolkit, kohya and SimpleTuner follow.

Letters: R rank, I width of a layer's input, O of its output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

EXACT = 256  # the highest rank at which a LoKr or LoHa becomes a LoRA that does the very same, unless asked otherwise
SPARE, ROUNDS = 32, 6  # of the randomised singular value decomposition: further directions, and how often it refines
SEED = 0  # of its first guess: the same file becomes the same LoRA


class Pair(NamedTuple):
    """The two matrices of a LoRA on one layer: what it adds to the layer's weight is `up_OR @ down_RI`."""

    down_RI: Tensor
    up_OR: Tensor


@dataclass(frozen=True)
class Change:
    """What a file says of one layer. `rank` is that of the `pair` that holds it exactly; `whole` is the change itself,
    (O, I) in float32; `dtype` is the file's; `plain` if it is a LoRA already."""

    rank: int
    dtype: torch.dtype
    pair: Callable[[], Pair]
    whole: Callable[[], Tensor]
    plain: bool = False


class Loss(NamedTuple):
    """What a LoRA of a lower rank leaves out of a layer's change: squared Frobenius norms of that, and of all."""

    layer: str
    left_out: float
    of: float

    @property
    def error(self) -> float:
        """Relative Frobenius error, 0 to 1."""
        return math.sqrt(self.left_out / self.of) if self.of else 0.0


def change_of(parts: Mapping[str, Tensor]) -> Change:
    """What one layer's entries mean: `A` and `B`, `lokr_...` or `hada_...`, and `alpha`.

    Raises:
        ValueError: they are of several kinds, not complete, do not fit each other, or their alpha makes no sense.
    """
    kinds = sorted({_kind(part) for part in parts if part != "alpha"})
    if len(kinds) != 1:
        raise ValueError(f"it holds {' and '.join(kinds) or 'an alpha alone'} for one layer")
    if kinds == ["LoRA"]:
        return _lora(parts)
    return _lokr(parts) if kinds == ["LoKr"] else _loha(parts)


def _kind(part: str) -> str:
    return {"lokr": "LoKr", "hada": "LoHa"}.get(part[:4], "LoRA")


def _lora(parts: Mapping[str, Tensor]) -> Change:
    pair = Pair(parts["A"], parts["B"])
    pair = scaled(pair, _strength(parts, len(pair.down_RI)))
    return Change(
        len(pair.down_RI), pair.up_OR.dtype, lambda: pair, lambda: pair.up_OR.float() @ pair.down_RI.float(), plain=True
    )


def _lokr(parts: Mapping[str, Tensor]) -> Change:
    """The Kronecker product of two matrices, each whole or itself a product. Alpha counts where one is a product, for
    the rank of the second before that of the first."""
    one, two = (_factor(parts, f"lokr_w{number}") for number in (1, 2))
    products = [parts[key] for key in ("lokr_w2_b", "lokr_w1_b") if key in parts]
    strength, dtype = _strength(parts, len(products[0])) if products else 1.0, _dtype(parts)
    if not products and math.isnan(_alpha(parts, 1.0)):
        raise ValueError("its alpha is no number")  # an infinite one is ai-toolkit's 9999999999 in float16

    def pair() -> Pair:
        down_RI, up_OR = _kron(one.down_RI, two.down_RI), _kron(one.up_OR, two.up_OR)
        return _finished(down_RI, up_OR, strength, dtype)

    def whole() -> Tensor:
        return _kron(one.up_OR @ one.down_RI, two.up_OR @ two.down_RI) * strength

    return Change(len(one.down_RI) * len(two.down_RI), dtype, pair, whole)


def _kron(one: Tensor, two: Tensor) -> Tensor:
    """`torch.kron` for matrices of any strides, which it refuses at times."""
    return (one[:, None, :, None] * two[None, :, None]).reshape(len(one) * len(two), -1)


def _loha(parts: Mapping[str, Tensor]) -> Change:
    """The product of two LoRAs, number by number: each rank of one meets each of the other."""
    one, two = (_factor(parts, f"hada_w{number}", product=True) for number in (1, 2))
    output, width = len(one.up_OR), one.down_RI.shape[1]
    if (len(two.up_OR), two.down_RI.shape[1]) != (output, width):
        raise ValueError("its two halves are of different widths")
    strength, dtype = _strength(parts, len(one.down_RI)), _dtype(parts)
    ranks = len(one.down_RI) * len(two.down_RI)

    def whole() -> Tensor:
        return (one.up_OR @ one.down_RI) * (two.up_OR @ two.down_RI) * strength

    def pair() -> Pair:
        if ranks > min(output, width):
            return _finished(*_split(whole()), 1.0, dtype)
        down_RI = (one.down_RI[:, None] * two.down_RI[None]).reshape(ranks, width)
        up_OR = (one.up_OR[:, :, None] * two.up_OR[:, None]).reshape(output, ranks)
        return _finished(down_RI, up_OR, strength, dtype)

    return Change(min(ranks, output, width), dtype, pair, whole)


def _factor(parts: Mapping[str, Tensor], name: str, product: bool = False) -> Pair:
    """One of the two matrices that are multiplied, taken apart, in float32."""
    whole, up, down = (parts.get(f"{name}{side}") for side in ("", "_a", "_b"))
    if whole is not None and up is None and down is None and not product:
        return _split(_matrix(whole, name).float())
    if up is None or down is None or whole is not None:
        wanted = f"{name}_a and {name}_b" + ("" if product else f", or {name} alone")
        raise ValueError(f"it is incomplete: it needs {wanted}")
    if _matrix(up, name).shape[1] != len(_matrix(down, name)):
        raise ValueError(f"{name}_a and {name}_b are of different ranks")
    return Pair(down.float(), up.float())


def _matrix(tensor: Tensor, name: str) -> Tensor:
    if tensor.ndim != 2 or not tensor.numel():
        raise ValueError(f"{name} is no matrix, but of shape {tuple(tensor.shape)}")
    return tensor


def _split(matrix_OI: Tensor) -> Pair:
    """A matrix as a product of as few ranks as it has."""
    rank = max(1, int(torch.linalg.matrix_rank(matrix_OI)))
    if rank < min(matrix_OI.shape):
        left, sizes, right = torch.linalg.svd(matrix_OI, full_matrices=False)
        return Pair(right[:rank], left[:, :rank] * sizes[:rank])
    output, width = matrix_OI.shape
    return Pair(torch.eye(width), matrix_OI) if output >= width else Pair(matrix_OI, torch.eye(output))


def _finished(down_RI: Tensor, up_OR: Tensor, strength: float, dtype: torch.dtype) -> Pair:
    """A pair in float32 in the file's own type: both matrices reach as far, so that neither leaves its range."""
    sizes = [float(matrix.abs().max()) for matrix in (down_RI, up_OR)]
    share = 2.0 ** round(math.log2(sizes[1] * strength / sizes[0]) / 2) if all(sizes) else 1.0  # exact
    return Pair((down_RI * share).to(dtype), (up_OR * (strength / share)).to(dtype))


def _dtype(parts: Mapping[str, Tensor]) -> torch.dtype:
    return next(tensor.dtype for part, tensor in parts.items() if part != "alpha")


def _alpha(parts: Mapping[str, Tensor], otherwise: float) -> float:
    alpha = parts.get("alpha")
    if alpha is None:
        return otherwise
    if alpha.numel() != 1 or alpha.is_complex():
        raise ValueError(f"its alpha is no single number, but of shape {tuple(alpha.shape)}")
    return float(alpha)


def _strength(parts: Mapping[str, Tensor], rank: int) -> float:
    """How strongly alpha lets a product of that rank count; where the file says none, alpha is the rank."""
    return _sensible(_alpha(parts, rank) / rank)


def _sensible(strength: float) -> float:
    if not 0 < strength < math.inf:
        raise ValueError(f"an alpha makes it {strength:g} times as strong, which makes no sense")
    return strength


def scaled(pair: Pair, strength: float) -> Pair:
    """The pair, that much stronger; a share on either side, so that neither leaves the range of float16.

    Raises:
        ValueError: `strength` is no positive number.
    """
    if _sensible(strength) == 1:
        return pair
    share = 2.0 ** round(math.log2(strength) / 2)  # a power of two: exact
    down_RI, up_OR = (
        (matrix.float() * factor).to(matrix.dtype)
        for matrix, factor in zip(pair, (share, strength / share), strict=True)
    )
    return Pair(down_RI, up_OR)


def truncated(change_OI: Tensor, rank: int, dtype: torch.dtype) -> Pair:
    """The best LoRA of a rank, by a randomised singular value decomposition (arXiv 0909.4061)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        left, sizes, right = torch.svd_lowrank(change_OI, q=min(rank + SPARE, *change_OI.shape), niter=ROUNDS)
    roots = sizes[:rank].sqrt()
    return Pair((right[:, :rank] * roots).T.to(dtype), (left[:, :rank] * roots).to(dtype))


def loss_of(layer: str, pair: Pair, whole_OI: Tensor | None) -> Loss:
    """What a pair, as it is kept, leaves out of a change; nothing if None is given, and the pair is all of it."""
    down_RI, up_OR = pair.down_RI.float(), pair.up_OR.float()
    if whole_OI is None:
        return Loss(layer, 0.0, float(((up_OR.T @ up_OR) * (down_RI @ down_RI.T)).sum()))
    return Loss(layer, float((whole_OI - up_OR @ down_RI).square().sum()), float(whole_OI.square().sum()))


def stacked(pairs: Sequence[Pair | None]) -> Pair:
    """One pair for layers of equal width whose outputs come in a row; nothing is added to those that have none."""
    first, *others = given = [pair for pair in pairs if pair]
    shared = all(torch.equal(first.down_RI, other.down_RI) for other in others)
    ranks = first.up_OR.shape[1] if shared else 0
    ups = [pair.up_OR if pair else first.up_OR.new_zeros(len(first.up_OR), ranks) for pair in pairs]
    if shared:
        return Pair(first.down_RI, torch.cat(ups))
    return Pair(torch.cat([pair.down_RI for pair in given]), torch.block_diag(*ups))
