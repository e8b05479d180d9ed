"""LoRA layers that are trained in fewer passes: the same outputs and gradients as PEFT's own."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import nn

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from tests.tiny import tiny_transformer
from training.fit.draw import Draw
from training.fit.fused import FusedLinear, fuse
from training.fit.lora import LoraWeights
from training.fit.loss import group_loss
from training.fit.views import look_at


def layer(bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40, bias=bias))
    [made] = inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=["0"]), model, "adapter")
    nn.init.normal_(made.lora_B["adapter"].weight)
    return made


def fused(plain):
    model = nn.Sequential(copy.deepcopy(plain))
    fuse(model)
    assert type(model[0]) is FusedLinear
    return model[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24)])
def test_a_fused_layer_computes_and_learns_as_peft_does(bias, shape):
    results = []
    for each in (plain := layer(bias), fused(plain)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = each(x)
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
        results.append([y, x.grad, each.lora_A["adapter"].weight.grad, each.lora_B["adapter"].weight.grad])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    assert results[0][1].abs().max() > 0


def test_its_gradients_are_those_of_finite_differences():
    made = fused(layer(True)).double()
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: made(x), (x, *(p for p in made.parameters() if p.requires_grad)))


def test_an_adapter_learns_the_same_from_a_group(tiny_base, scene):
    pairs = [Pair(f"{n}", "", scene(n), scene(n + 9), ("", ""), (f"{n}", "")) for n in range(3)]
    gradients = []
    for plain in (False, True):
        editor = Editor.load(tiny_base, device="cpu")
        weights = LoraWeights(editor.family.transformer, 4, 0)
        with torch.no_grad():
            for weight in weights.weights:
                weight.add_(0.02)
        layers = [module for module in editor.family.transformer.modules() if isinstance(module, Linear)]
        assert layers and all(type(each) is FusedLinear for each in layers)
        for each in layers if plain else ():
            each.__class__ = Linear
        generator = torch.Generator().manual_seed(3)
        group_loss(editor.family, "prefix", 2, Draw(look_at(editor, pairs, 2), 2, 1)(generator), generator).backward()
        gradients.append([weight.grad for weight in weights.weights])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_without_learning_the_layer_is_that_of_peft_bit_for_bit():
    x, plain = torch.randn(2, 9, 24), layer(False)
    with torch.no_grad():
        assert torch.equal(fused(plain)(x), plain(x))


def test_weights_in_other_numbers_stay_with_peft():
    transformer = tiny_transformer().to(torch.bfloat16)
    LoraWeights(transformer, 4, 0)
    assert not any(type(module) is FusedLinear for module in transformer.modules())
