"""LoRAs for the tests: complete ones, under our names and under those of other tools."""

import itertools

import torch
from torch import nn

from pipelines.transfer import names

SPELLINGS = {  # how keys begin, whether dots become underscores, and the names of the two matrices
    "ai-toolkit": ("diffusion_model.", False, "lora_A", "lora_B"),
    "ComfyUI": ("diffusion_model.", False, "lora_down", "lora_up"),
    "kohya": ("lora_unet_", True, "lora_down", "lora_up"),
}


def linears(model) -> dict[str, tuple[int, int]]:
    """Output and input width of every layer that a LoRA can be on."""
    return {name: tuple(each.weight.shape) for name, each in model.named_modules() if isinstance(each, nn.Linear)}


def shapes_of(model, rank: int) -> dict[str, tuple[int, int]]:
    """Shapes of a complete LoRA under our names."""
    matrices = {}
    for name, (output, width) in linears(model).items():
        matrices |= {f"{name}.lora_A.weight": (rank, width), f"{name}.lora_B.weight": (output, rank)}
    return matrices


def told(weights) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weight.shape) for key, weight in weights.items()}


def random_lora(model, *, rank: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A complete LoRA under our names that says something."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: (torch.randn(shape, generator=generator) * 0.1).to(dtype) for key, shape in shapes_of(model, rank).items()
    }


def stacked(model, weights: dict[str, torch.Tensor], spelling: str, *, alpha: float | None = None):
    """The same LoRA as other tools would have written it: block-diagonal where official layers stack several."""
    prefix, underscores, down, up = SPELLINGS[spelling]
    kind, written = type(model).__name__, {}
    counts = {"double": model.config.num_layers, "single": model.config.num_single_layers}
    for name, number in itertools.product(names.BFL[kind], range(max(counts.values()))):
        layers = [layer.format(number) for layer in names.BFL[kind][name]]
        if layers[0] not in linears(model):
            continue
        downs, ups = ([weights[f"{layer}.lora_{matrix}.weight"] for layer in layers] for matrix in "AB")
        if name == names.MODULATION:
            ups = [torch.cat(ups[0].chunk(2)[::-1])]
        layer = name.format(number).replace(".", "_") if underscores else name.format(number)
        written[f"{prefix}{layer}.{down}.weight"] = torch.cat(downs)
        rank = sum(map(len, downs))
        strength = 1 if alpha is None else alpha / rank
        written[f"{prefix}{layer}.{up}.weight"] = torch.block_diag(*ups) / strength
        if alpha is not None:
            written[f"{prefix}{layer}.alpha"] = torch.tensor(alpha)
    return written


def pairs_of(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    layers = dict.fromkeys(key.partition(".lora_")[0] for key in weights)
    return {layer: (weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"]) for layer in layers}
