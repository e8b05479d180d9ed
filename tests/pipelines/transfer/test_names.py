"""LoRAs under any tool's names, at full size and without the weights of a base: every key finds its layer, and back."""

import itertools

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, FluxLoraLoaderMixin

from pipelines.transfer import conversion, names
from tests.fullsize import TRANSFORMERS, class_of
from tests.loras import SPELLINGS, linears, shapes_of, told

RANK = 16
LINEARS = {"FLUX.1-dev": 504, "FLUX.2-klein-4B": 109, "FLUX.2-klein-9B": 153, "FLUX.2-dev": 203}


@pytest.fixture(scope="module", params=TRANSFORMERS)
def full(request):
    """A model of full size without weights."""
    model = getattr(diffusers, class_of(request.param))
    with torch.device("meta"):
        return model(**TRANSFORMERS[request.param])


def official(model) -> dict[str, tuple[int, int]]:
    """Output and input width of every Linear in Black Forest Labs' own code, written down from there."""
    config = model.config
    wide, text, flux1 = config.num_attention_heads * 128, config.joint_attention_dim, "pooled_projection_dim" in config
    hidden, gated = (4 * wide, 4 * wide) if flux1 else (3 * wide, 6 * wide)
    sizes = {"img_in": (wide, config.in_channels), "txt_in": (wide, text)}
    guidance = ["guidance_in"] if config.guidance_embeds else []
    for part, width in {
        "time_in": 256,
        **dict.fromkeys(guidance, 256),
        **({"vector_in": 768} if flux1 else {}),
    }.items():
        sizes |= {f"{part}.in_layer": (wide, width), f"{part}.out_layer": (wide, wide)}
    for index, stream in itertools.product(range(config.num_layers), ("img", "txt")):
        block = f"double_blocks.{index}.{stream}"
        sizes |= {f"{block}_attn.qkv": (3 * wide, wide), f"{block}_attn.proj": (wide, wide)}
        sizes |= {f"{block}_mlp.0": (gated, wide), f"{block}_mlp.2": (wide, hidden)}
        sizes |= {f"{block}_mod.lin": (6 * wide, wide)} if flux1 else {}
    for index in range(config.num_single_layers):
        block = f"single_blocks.{index}"
        sizes |= {f"{block}.linear1": (3 * wide + gated, wide), f"{block}.linear2": (wide, wide + hidden)}
        sizes |= {f"{block}.modulation.lin": (3 * wide, wide)} if flux1 else {}
    if not flux1:
        sizes |= {f"double_stream_modulation_{stream}.lin": (6 * wide, wide) for stream in ("img", "txt")}
        sizes |= {"single_stream_modulation.lin": (3 * wide, wide)}
    return sizes | {
        "final_layer.linear": (config.in_channels, wide),
        "final_layer.adaLN_modulation.1": (2 * wide, wide),
    }


def foreign_lora(model, spelling: str, *, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A complete LoRA under official names; row n of each B is n, and no memory is used."""
    prefix, underscores, down, up = SPELLINGS[spelling]
    weights = {}
    for number, (name, (output, width)) in enumerate(official(model).items(), 1):
        layer = prefix + (name.replace(".", "_") if underscores else name)
        weights[f"{layer}.{down}.weight"] = torch.tensor(float(number)).expand(RANK, width)
        weights[f"{layer}.{up}.weight"] = torch.arange(1.0, output + 1)[:, None].expand(output, RANK)
        if alpha is not None:
            weights[f"{layer}.alpha"] = torch.tensor(alpha)
    return weights


def converted(model, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What diffusers' converter of whole checkpoints makes of official weights; the model's own rows, in its order."""
    checkpoint = {f"{name}.weight": weights[f"diffusion_model.{name}.lora_B.weight"] for name in official(model)}
    if isinstance(model, diffusers.Flux2Transformer2DModel):
        return single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers(checkpoint)
    checkpoint |= {f"{key.removesuffix('weight')}bias": weight[:, 0] for key, weight in checkpoint.items()}
    streams = {f"double_blocks.{n}.{s}_attn" for n in range(model.config.num_layers) for s in ("img", "txt")}
    for block in streams | {f"single_blocks.{index}" for index in range(model.config.num_single_layers)}:
        checkpoint |= {f"{block}.norm.{kind}_norm.scale": torch.zeros(1) for kind in ("query", "key")}
    return single_file_utils.convert_flux_transformer_checkpoint_to_diffusers(checkpoint)


def test_every_linear_layer_has_one_official_name(full, request):
    assert len(linears(full)) == LINEARS[request.node.callspec.params["full"]]
    stacked = [names.layers(type(full).__name__, f"{name}.alpha") for name in official(full)]
    assert sorted(itertools.chain(*stacked)) == sorted(linears(full))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_official_name_becomes_ours_at_full_size(full, spelling):
    """And every row is where diffusers puts it when it converts a whole checkpoint."""
    weights = foreign_lora(full, spelling, alpha=RANK if spelling == "kohya" else None)
    assert names.foreign(type(full).__name__, weights)
    ours = conversion.to_ours(full, weights)
    assert told(ours) == shapes_of(full, RANK)
    rows = converted(full, foreign_lora(full, "ai-toolkit"))
    for layer in linears(full):
        assert torch.equal(ours[f"{layer}.lora_B.weight"], rows[f"{layer}.weight"]), layer


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_names_of_diffusers_are_ours(full, prefix):
    shapes = shapes_of(full, RANK)
    keys = [prefix + key for key in shapes]
    assert not names.foreign(type(full).__name__, keys)
    for key in keys:
        assert names.layers(type(full).__name__, key) == (key.removeprefix(prefix).partition(".lora_")[0],)


@pytest.mark.parametrize("prefix", ["lora_transformer_", "lora_unet_"])
def test_names_of_diffusers_with_underscores_become_ours(full, prefix):
    """As older versions of ai-toolkit and sd-scripts wrote them."""
    weights = {}
    for key, shape in shapes_of(full, RANK).items():
        layer, matrix = key.split(".lora_")
        spelled = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[matrix]
        weights[f"{prefix}{layer.replace('.', '_')}.{spelled}"] = torch.ones(1, dtype=torch.bfloat16).expand(shape)
    assert told(conversion.to_ours(full, weights)) == shapes_of(full, RANK)


@pytest.mark.parametrize("shared", [False, True])
def test_ours_become_those_of_ai_toolkit_and_back_at_full_size(full, shared):
    """The very keys that it writes, and nothing is lost on the way."""
    kind, weights = type(full).__name__, {}
    for number, (key, shape) in enumerate(shapes_of(full, RANK).items()):
        value = 1.0 if shared else number % 97 + 1.0
        weights[f"transformer.{key}"] = torch.tensor(value, dtype=torch.bfloat16).expand(shape)
    written = conversion.to_ai_toolkit(kind, weights, {})
    if kind == "FluxTransformer2DModel":
        assert told(written) == told(weights)
        assert not names.foreign(kind, written)
        return
    expected = {}
    for name, (output, width) in official(full).items():
        rank = RANK if shared or not name.endswith("qkv") else 3 * RANK
        layer = f"diffusion_model.{name}"
        expected |= {f"{layer}.lora_A.weight": (rank, width), f"{layer}.lora_B.weight": (output, rank)}
    assert told(written) == expected
    back = conversion.to_ours(full, written)
    assert told(back) == shapes_of(full, RANK)
    assert all(torch.equal(weight, weights[f"transformer.{key}"]) for key, weight in back.items())


def test_stock_diffusers_reads_what_is_written_for_ai_toolkit(full):
    kind, weights = type(full).__name__, {}
    for number, (key, shape) in enumerate(shapes_of(full, RANK).items(), 1):
        weights[key] = torch.tensor(float(number), dtype=torch.bfloat16).expand(shape)
    mixin = FluxLoraLoaderMixin if kind == "FluxTransformer2DModel" else Flux2LoraLoaderMixin
    read = mixin.lora_state_dict(conversion.to_ai_toolkit(kind, weights, {}))
    assert {key.removeprefix("transformer.") for key in read} == set(shapes_of(full, RANK))
    for layer, (output, width) in linears(full).items():
        down, up = (read[f"transformer.{layer}.lora_{matrix}.weight"] for matrix in "AB")
        assert (len(up), down.shape[1]) == (output, width) and up.shape[1] == len(down)


def test_ai_toolkit_trains_as_many_layers_of_flux1_as_it_says():
    """'create LoRA for U-Net: 494 modules', says its log for FLUX.1-dev."""
    model, config = diffusers.FluxTransformer2DModel, TRANSFORMERS["FLUX.1-dev"]
    with torch.device("meta"):
        layers = linears(model(**config))
    assert sum("transformer_blocks." in name for name in layers) == 494
