"""One batch of images that differ in adapter and in noise level, equal bit for bit to each image alone.

What a batch has per token, diffusers' model runs as for any other batch. What it has per image, the modulations that
follow from an image's noise level, is run image by image: a matrix product of one row rounds differently from one of
several. LoRA layers are told which image wears what through PEFT's `adapter_names`, by a hook, since the model itself
does not pass them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from pipelines.transfer.family import Family

BARE = "__base__"  # PEFT's name for: no adapter


class Mixture:
    """Lets a transformer run batches in which every image wears an adapter of its own.

    Outside of `worn` the transformer does what it did before.
    """

    def __init__(self, family: Family) -> None:
        self.transformer: nn.Module = family.transformer
        self._names: list[str] | None = None
        self._alike = False  # one adapter for all images
        self._hooked: WeakSet[Any] = WeakSet()  # LoRA layers
        for name in family.per_image:
            module = self.transformer.get_submodule(name)
            module.forward = self._image_by_image(module.forward)

    def refresh(self) -> None:
        """Reach LoRA layers that came since the last call."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self.transformer.modules():
            if isinstance(module, BaseTunerLayer) and module not in self._hooked:
                module.register_forward_pre_hook(self._name, with_kwargs=True)
                self._hooked.add(module)

    @contextmanager
    def worn(self, names: Sequence[str | None]) -> Iterator[None]:
        """While the block lasts, the images of a batch wear these adapters, None for none."""
        self._names = [name or BARE for name in names]
        self._alike = len(set(self._names)) == 1 and self._names[0] != BARE
        try:
            with self._active(self._names[0]) if self._alike else nullcontext():
                yield
        finally:
            self._names = None

    @contextmanager
    def _active(self, name: str) -> Iterator[None]:
        """One adapter for all images: PEFT's usual way, which copies no rows to and fro. Its own `set_adapter` would go
        through the weights of all adapters that hang there."""
        layers = [(layer, layer._active_adapter) for layer in self._hooked]
        try:
            for layer, _ in layers:
                layer._active_adapter = name
            yield
        finally:
            for layer, before in layers:
                layer._active_adapter = before

    def _name(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if self._names is None or self._alike:
            return None
        return args, kwargs | {"adapter_names": self._names}

    def _image_by_image(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Tensor | None, **more: Tensor | None) -> Any:
            names = self._names
            if names is None:
                return forward(*inputs, **more)
            outputs = []
            try:
                for index, name in enumerate(names):
                    self._names = [name]
                    rows = {key: _row(each, index) for key, each in more.items()}
                    outputs.append(forward(*(_row(each, index) for each in inputs), **rows))
            finally:
                self._names = names
            if isinstance(outputs[0], tuple):
                return tuple(torch.cat(each) for each in zip(*outputs, strict=True))
            return torch.cat(outputs)

        return run


def _row(tensor: Tensor | None, index: int) -> Tensor | None:
    """One image's row; where all share one, that."""
    return tensor if tensor is None or len(tensor) == 1 else tensor[index : index + 1]
