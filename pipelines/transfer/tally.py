"""Which bytes a computation needs at once: tensors are counted while they live, on the meta device too.

On that device nothing is computed and no memory is taken, so that a model of any size can be looked at anywhere.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tally(TorchDispatchMode):
    """While it is entered, adds up the storages that operations create on a device, until they are freed.

    `now` is how many bytes of them live, `peak` the most that did since `restart`. What existed before is not counted,
    and neither is what a kernel needs for itself. Gradients must be off, and inference mode as well: under it whole
    functions pass for one operation, and what they hold meanwhile is not seen.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        fresh = [storage for storage in self._storages(made) if id(storage) not in self._alive]
        if fresh:  # or a view of what was there before
            given = {id(storage) for storage in self._storages((args, kwargs))}
            for storage in fresh:
                if id(storage) not in given:
                    self._count(storage)
        return made

    def _storages(self, values: Any) -> list[torch.UntypedStorage]:
        tensors = (value for value in tree_leaves(values) if isinstance(value, Tensor))
        return [tensor.untyped_storage() for tensor in tensors if tensor.device.type == self.device.type]

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._alive[key] = weakref.ref(storage, partial(self._freed, key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int, size: int, _: object) -> None:
        del self._alive[key]
        self.now -= size


class _FlashOnMeta(TorchFunctionMode):
    """Attention on the meta device as a GPU's kernels do it: torch itself takes the plain formula there, with a score
    for every query and key."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_attend if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


def _attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if query.is_meta:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)


@contextmanager
def tallied(device: torch.device) -> Iterator[Tally]:
    """Count what is done here on a device."""
    with torch.no_grad(), _FlashOnMeta(), Tally(device) as tally:
        yield tally
