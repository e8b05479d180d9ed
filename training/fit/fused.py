"""LoRA layers in fewer passes over memory, while they are trained in float32 on a CPU.

PEFT adds the product of a LoRA to that of the base as tensors of their own, scaled, forth and back. Here they are
summed as they are multiplied; the mathematics is the same.

Letters: N rows of all images, I and O channels in and out, R the rank.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class _Adapted(torch.autograd.Function):
    """x W' + x A' B', the base's weight W frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, down_RI: Tensor, up_OR: Tensor) -> Tensor:
        x_NI = x.flatten(0, -2)
        small_NR = x_NI @ down_RI.T
        y_NO = x_NI @ weight_OI.T if bias is None else torch.addmm(bias, x_NI, weight_OI.T)
        ctx.save_for_backward(x_NI, small_NR, weight_OI, down_RI, up_OR)
        return y_NO.addmm_(small_NR, up_OR.T).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
        x_NI, small_NR, weight_OI, down_RI, up_OR = ctx.saved_tensors
        [gradient] = gradients
        y_NO = gradient.flatten(0, -2)
        back_NR = y_NO @ up_OR
        x = None
        if ctx.needs_input_grad[0]:
            x = (y_NO @ weight_OI).addmm_(back_NR, down_RI).unflatten(0, gradient.shape[:-1])
        return x, None, None, back_NR.T @ x_NI, y_NO.T @ small_NR


class FusedLinear(Linear):
    """PEFT's layer with one adapter of scale 1. Where nothing is learned it is PEFT's own."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled() or self.disable_adapters or torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)
        [name] = self.active_adapters
        weights = self.lora_A[name].weight, self.lora_B[name].weight
        return _Adapted.apply(x, self.base_layer.weight, self.base_layer.bias, *weights)


def fuse(transformer: nn.Module) -> None:
    """Have the LoRA layers of a transformer work so, where its weights are in float32 on a CPU."""
    for module in transformer.modules():
        if type(module) is Linear and _plain(module.base_layer.weight):
            module.__class__ = FusedLinear


def _plain(weight: object) -> bool:
    return type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
