"""Batch invariance on a CPU: what an image becomes does not depend on the images beside it, nor on the threads.

The products of a CPU (MKL, oneDNN) are summed in an order that follows from the number of rows and of threads, by rules
that differ from processor to processor. So rows of different images never share a product here: the batch is one for
all that works row by row or value by value, each image is one for all that sums. The autoencoder takes images one by
one anyway (`loading`). It makes a batch of images of 16 tokens 1.16 times as dear; one by one they would be 2.2 times
as dear (`tests/benchmarks/invariance.py`). On a GPU batches are batches.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, key, value, BSHD -> BSHD
THREADS = 1  # of a process that edits on a CPU; several of them share the cores


class BatchInvariantLinear(nn.Linear):
    """A linear layer that multiplies the rows of every image of a batch, BSC, on their own; with gradients, like any
    other."""

    def forward(self, x_BSC: Tensor) -> Tensor:
        if x_BSC.ndim < 3 or _batched(x_BSC):
            return super().forward(x_BSC)
        if type(self.weight) is not nn.Parameter:  # in fewer bits
            return torch.cat([super(BatchInvariantLinear, self).forward(image) for image in x_BSC.split(1)])
        y_BSD = x_BSC.new_empty(*x_BSC.shape[:-1], self.out_features)
        for x_SC, y_SD in zip(x_BSC, y_BSD, strict=True):
            if self.bias is None:
                torch.mm(x_SC, self.weight.t(), out=y_SD)
            else:
                torch.addmm(self.bias, x_SC, self.weight.t(), out=y_SD)
        return y_BSD


def make_invariant(transformer: nn.Module) -> None:
    """Have the linear layers of a transformer on a CPU, those of its LoRAs included, work image by image."""
    for module in transformer.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            module.__class__ = BatchInvariantLinear


def image_by_image(attention: Attend) -> Attend:
    """The same attention, computed for every image on its own where that decides how it is rounded."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if len(query) == 1 or _batched(query):
            return attention(query, key, value)
        rows = zip(query.split(1), key.split(1), value.split(1), strict=True)
        return torch.cat([attention(*row) for row in rows])

    return attend


def _batched(x: Tensor) -> bool:
    """Whether images may share products: on a GPU, in training, and where a compiler would unroll the batch."""
    return x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()


class _OneThread:
    """Has the process compute with one thread while anybody is inside: of MKL's threads there is one number for all."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = Lock(), 0, THREADS

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = torch.get_num_threads()
            self.inside += 1
            torch.set_num_threads(THREADS)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                torch.set_num_threads(self.before)


_ONE_THREAD = _OneThread()


@contextmanager
def editing(device: torch.device) -> Iterator[None]:
    """While the block lasts nothing is learned, and on a CPU one thread computes."""
    with torch.inference_mode(), _ONE_THREAD if device.type == "cpu" else nullcontext():
        yield


def edits(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """For the methods of an Editor: everything in them is `editing` on its device."""

    @wraps(method)
    def run(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with editing(self.family.device):
            return method(self, *args, **kwargs)

    return run


def numerics_of(device: torch.device, dtype: torch.dtype) -> str:
    """What decides how results are rounded, in a few words: device, instruction set, dtype, versions.

    Where two results of one work differ, these differ; a batch, a worker or a number of threads is never the reason.
    """
    kept = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {kept}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"{_processor()} {torch.backends.cpu.get_cpu_capability()}, {kept}, torch {torch.__version__}"


@lru_cache(maxsize=1)
def _processor() -> str:
    """The model of this machine's processor, its architecture where nothing tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
