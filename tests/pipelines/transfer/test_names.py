"""LoRAs under any tool's names: at full size every key finds its layer and back, on small models they do the same."""

import itertools
import json
import re

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, FluxLoraLoaderMixin
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from infra import registry
from infra.cli import app
from infra.errors import AdapterNotFound
from pipelines import adapters
from pipelines.transfer import Editor, Lora, bases, names
from pipelines.transfer import adapters as lora_adapters
from tests.tiny import CONTEXT, POOLED, make_tiny_flux1, tiny_transformer, tiny_transformer1

RANK = 16
KLEIN = {"attention_head_dim": 128, "guidance_embeds": False}
SIZES = {
    "FLUX.1-dev": (FluxTransformer2DModel, {"guidance_embeds": True}),
    "FLUX.2-klein-4B": (
        Flux2Transformer2DModel,
        KLEIN | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    ),
    "FLUX.2-klein-9B": (
        Flux2Transformer2DModel,
        KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    ),
    "FLUX.2-dev": (Flux2Transformer2DModel, {}),
}
LINEARS = {"FLUX.1-dev": 504, "FLUX.2-klein-4B": 109, "FLUX.2-klein-9B": 153, "FLUX.2-dev": 203}
SPELLINGS = {  # how keys begin, whether dots become underscores, and the names of the two matrices
    "ai-toolkit": ("diffusion_model.", False, "lora_A", "lora_B"),
    "ComfyUI": ("diffusion_model.", False, "lora_down", "lora_up"),
    "kohya": ("lora_unet_", True, "lora_down", "lora_up"),
}


@pytest.fixture(scope="module", params=SIZES)
def full(request):
    """A model of full size without weights."""
    model, config = SIZES[request.param]
    with torch.device("meta"):
        return model(**config)


def linears(model) -> dict[str, tuple[int, int]]:
    """Output and input width of every layer that a LoRA can be on."""
    return {name: tuple(each.weight.shape) for name, each in model.named_modules() if isinstance(each, nn.Linear)}


def shapes_of(model, rank: int = RANK) -> dict[str, tuple[int, int]]:
    """Shapes of a complete LoRA under our names."""
    matrices = {}
    for name, (output, width) in linears(model).items():
        matrices |= {f"{name}.lora_A.weight": (rank, width), f"{name}.lora_B.weight": (output, rank)}
    return matrices


def told(weights) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weight.shape) for key, weight in weights.items()}


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
    if isinstance(model, Flux2Transformer2DModel):
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
    ours = names.to_ours(full, weights)
    assert told(ours) == shapes_of(full)
    rows = converted(full, foreign_lora(full, "ai-toolkit"))
    for layer in linears(full):
        assert torch.equal(ours[f"{layer}.lora_B.weight"], rows[f"{layer}.weight"]), layer


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_names_of_diffusers_are_ours(full, prefix):
    shapes = shapes_of(full)
    keys = [prefix + key for key in shapes]
    assert not names.foreign(type(full).__name__, keys)
    for key in keys:
        assert names.layers(type(full).__name__, key) == (key.removeprefix(prefix).partition(".lora_")[0],)


@pytest.mark.parametrize("prefix", ["lora_transformer_", "lora_unet_"])
def test_names_of_diffusers_with_underscores_become_ours(full, prefix):
    """As older versions of ai-toolkit and sd-scripts wrote them."""
    weights = {}
    for key, shape in shapes_of(full).items():
        layer, matrix = key.split(".lora_")
        spelled = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[matrix]
        weights[f"{prefix}{layer.replace('.', '_')}.{spelled}"] = torch.ones(1, dtype=torch.bfloat16).expand(shape)
    assert told(names.to_ours(full, weights)) == shapes_of(full)


@pytest.mark.parametrize("shared", [False, True])
def test_ours_become_those_of_ai_toolkit_and_back_at_full_size(full, shared):
    """The very keys that it writes, and nothing is lost on the way."""
    kind, weights = type(full).__name__, {}
    for number, (key, shape) in enumerate(shapes_of(full).items()):
        value = 1.0 if shared else number % 97 + 1.0
        weights[f"transformer.{key}"] = torch.tensor(value, dtype=torch.bfloat16).expand(shape)
    written = names.to_ai_toolkit(kind, weights, {})
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
    back = names.to_ours(full, written)
    assert told(back) == shapes_of(full)
    assert all(torch.equal(weight, weights[f"transformer.{key}"]) for key, weight in back.items())


def test_stock_diffusers_reads_what_is_written_for_ai_toolkit(full):
    kind, weights = type(full).__name__, {}
    for number, (key, shape) in enumerate(shapes_of(full).items(), 1):
        weights[key] = torch.tensor(float(number), dtype=torch.bfloat16).expand(shape)
    mixin = FluxLoraLoaderMixin if kind == "FluxTransformer2DModel" else Flux2LoraLoaderMixin
    read = mixin.lora_state_dict(names.to_ai_toolkit(kind, weights, {}))
    assert {key.removeprefix("transformer.") for key in read} == set(shapes_of(full))
    for layer, (output, width) in linears(full).items():
        down, up = (read[f"transformer.{layer}.lora_{matrix}.weight"] for matrix in "AB")
        assert (len(up), down.shape[1]) == (output, width) and up.shape[1] == len(down)


def test_ai_toolkit_trains_as_many_layers_of_flux1_as_it_says():
    """'create LoRA for U-Net: 494 modules', says its log for FLUX.1-dev."""
    model, config = SIZES["FLUX.1-dev"]
    with torch.device("meta"):
        layers = linears(model(**config))
    assert sum("transformer_blocks." in name for name in layers) == 494


# ------------------------------------------------------------------------------------------ small models, real values

TINY = {"flux1": tiny_transformer1, "flux2": tiny_transformer}
MIXINS = {"flux1": FluxLoraLoaderMixin, "flux2": Flux2LoraLoaderMixin}


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


def output(model) -> torch.Tensor:
    flux1 = isinstance(model, FluxTransformer2DModel)
    axes = 3 if flux1 else 4
    generator = torch.Generator().manual_seed(0)
    places = torch.cartesian_prod(torch.tensor([0]), torch.arange(2), torch.arange(4), torch.tensor([0]))[:, :axes]
    more = {"pooled_projections": torch.randn(1, POOLED, generator=generator)} if flux1 else {}
    with torch.no_grad():
        return model(
            hidden_states=torch.randn(1, 8, model.config.in_channels, generator=generator),
            encoder_hidden_states=torch.randn(1, 2, CONTEXT, generator=generator),
            timestep=torch.full((1,), 0.7),
            img_ids=places,
            txt_ids=torch.zeros(2, axes),
            guidance=torch.ones(1) if model.config.guidance_embeds else None,
            **more,
        ).sample


def output_with(make, path, folder=None) -> torch.Tensor:
    """Of a small model that wears a LoRA, after it was rewritten if a folder is given."""
    model = make()
    path = lora_adapters.rewritten(make(), path, folder)[0] if folder else path
    lora_adapters.wear(model, [Lora(path)])
    return output(model)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(
    ("spelling", "alpha"), [("ai-toolkit", None), ("ComfyUI", 2.0), ("kohya", None), ("kohya", 3.0)]
)
def test_a_lora_does_the_same_under_any_names(tmp_path, family, spelling, alpha):
    make = TINY[family]
    weights = random_lora(make())
    save_file(weights, tmp_path / "ours.safetensors")
    save_file(stacked(make(), weights, spelling, alpha=alpha), tmp_path / "theirs.safetensors")
    expected = output_with(make, tmp_path / "ours.safetensors")
    assert (expected - output(make())).abs().max() > 0.1
    actual = output_with(make, tmp_path / "theirs.safetensors", tmp_path / "out")
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert told(load_file(tmp_path / "out" / "theirs.safetensors")) == {
        f"transformer.{key}": shape for key, shape in shapes_of(make(), 4).items()
    }


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("alpha", [4, 1])
def test_an_export_for_ai_toolkit_does_the_same_and_comes_back(tmp_path, monkeypatch, family, alpha):
    """Settings of PEFT become part of the matrices; layers without a LoRA stay without one."""
    make, place = TINY[family], str(tmp_path / "registry")
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", place)
    weights = {key: value for key, value in random_lora(make()).items() if "attn.to_k" not in key}
    settings = {"transformer.r": 4, "transformer.lora_alpha": 4, "transformer.target_modules": ["to_q"]}
    settings |= {"transformer.alpha_pattern": {"attn.to_q": alpha}}
    file = tmp_path / "ours.safetensors"
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    save_file({f"transformer.{key}": value for key, value in weights.items()}, file, metadata)
    about = {"base": {"name": "b", "revision": "r", "class": type(make()).__name__}, "pairs": [], "exemplars": []}
    registry.publish(place, "lift", {"adapter.safetensors": file.read_bytes()}, about)
    exported = tmp_path / "exported.safetensors"
    done = CliRunner().invoke(app, ["adapters", "export", "lift", str(exported), "--format", "ai-toolkit"])
    assert done.exit_code == 0, done.stderr
    prefix = {"flux1": "transformer.", "flux2": "diffusion_model."}[family]
    assert all(key.startswith(prefix) for key in load_file(exported))
    model, expected = make(), make()
    for name, (down, up) in pairs_of(weights).items():
        strength = alpha / 4 if name.endswith("attn.to_q") else 1
        expected.get_submodule(name).weight.data += strength * up @ down
    torch.testing.assert_close(output_with(make, exported, tmp_path / "back"), output(expected), atol=1e-5, rtol=1e-5)
    back = load_file(tmp_path / "back" / "exported.safetensors")
    assert told(back) == {f"transformer.{key}": tuple(value.shape) for key, value in weights.items()}
    assert linears(model).keys() > pairs_of(weights).keys()


@pytest.mark.parametrize("family", TINY)
def test_stock_diffusers_does_the_same_with_an_export(family):
    """On the blocks: of FLUX.2's last modulation it takes shift for scale in a LoRA, though not in a checkpoint."""
    make, mixin = TINY[family], MIXINS[family]
    stock, expected = make(), make()
    weights = {key: value for key, value in random_lora(stock).items() if "transformer_blocks." in key}
    written = names.to_ai_toolkit(type(stock).__name__, weights, {})
    stock.load_lora_adapter(mixin.lora_state_dict(written), prefix="transformer")
    for name, (down, up) in pairs_of(weights).items():
        expected.get_submodule(name).weight.data += up @ down
    torch.testing.assert_close(output(stock), output(expected), atol=1e-5, rtol=1e-5)


def pairs_of(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    layers = dict.fromkeys(key.partition(".lora_")[0] for key in weights)
    return {layer: (weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"]) for layer in layers}


def test_an_alpha_keeps_small_numbers_of_half_precision():
    """1e-5 is near the end of float16, and a 64th of it would be lost."""
    name = "transformer_blocks.0.attn.to_out.0"
    down, up = torch.full((64, 64), 0.5, dtype=torch.float16), torch.full((64, 64), 1e-5, dtype=torch.float16)
    spelled = f"lora_transformer_{name.replace('.', '_')}"
    weights = {f"{spelled}.lora_down.weight": down, f"{spelled}.lora_up.weight": up}
    ours = names.to_ours(tiny_transformer(), weights | {f"{spelled}.alpha": torch.tensor(1.0)})
    actual = ours[f"{name}.lora_B.weight"].float() @ ours[f"{name}.lora_A.weight"].float()
    torch.testing.assert_close(actual, up.float() @ down.float() / 64, rtol=0.05, atol=0)


# ------------------------------------------------------------------------------------- the paper's adapter, end to end


@pytest.fixture(scope="module")
def flux1(tmp_path_factory):
    return make_tiny_flux1(tmp_path_factory.mktemp("flux1"))


def published(folder, path):
    """A file with the keys of the paper's adapter: ai-toolkit's, rank 16, float16, every Linear of every block."""
    weights = random_lora(bases.skeleton(folder), rank=RANK, dtype=torch.float16)
    kept = {f"transformer.{key}": value for key, value in weights.items() if "transformer_blocks." in key}
    save_file(kept, path, {"format": "pt", "software": '{"name": "ai-toolkit"}'})
    return path


def test_the_papers_adapter_is_imported_and_worn(flux1, tmp_path, scene, monkeypatch):
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    file = published(flux1, tmp_path / "edit_transfer.safetensors")
    done = CliRunner().invoke(app, ["adapters", "import", str(file), "--name", "paper", "--base", str(flux1)])
    assert done.exit_code == 0, done.stderr
    [worn] = adapters.find(str(tmp_path / "registry"), ["paper"], 1.0, bases.revision_of(flux1))
    assert worn.attention == "full" and worn.version.about["rank"] == RANK
    [lora] = adapters.loras([worn], tmp_path / "cache")
    assert told(load_file(lora.path)) == told(load_file(file))
    editor = Editor.load(flux1, adapter=[lora], attention=worn.attention)

    def edited() -> bytes:
        prefix = editor.remember([(scene(1, (64, 64)), scene(2, (64, 64)))])
        return editor.edit([scene(3, (64, 64))], prefix, seeds=[5])[0].tobytes()

    changed = edited()
    editor.wear([Lora(file)])
    assert edited() == changed
    editor.wear([Lora(lora.path, 0.0)])
    nothing = edited()
    editor.wear([])
    assert edited() == nothing != changed


# ------------------------------------------------------------------------------------------------ what does not belong


def refusal(model, weights, tmp_path) -> str:
    """What is said of a file, by an import and by an editor."""
    path = tmp_path / "bad.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    with pytest.raises(AdapterNotFound) as refused:
        lora_adapters.rewritten(model, path, tmp_path / "out")
    with pytest.raises(AdapterNotFound):
        lora_adapters.wear(model, [Lora(path)])
    assert not (tmp_path / "out").exists()
    return str(refused.value)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("spelling", [None, *SPELLINGS])
def test_a_lora_of_the_other_family_is_refused(tmp_path, family, spelling):
    make, other = TINY[family], TINY["flux2" if family == "flux1" else "flux1"]
    weights = random_lora(other())
    weights = stacked(other(), weights, spelling) if spelling else weights
    said = refusal(make(), weights, tmp_path)
    assert re.search(r"was made for another base: \d+ of its \d+ weights", said)


@pytest.mark.parametrize("missing", ["img_attn.qkv.lora_A", "single_blocks.0.linear1.lora_B"])
def test_half_of_a_pair_is_told(tmp_path, missing):
    weights = stacked(tiny_transformer1(), random_lora(tiny_transformer1()), "ai-toolkit")
    weights = {key: value for key, value in weights.items() if missing not in key}
    said = refusal(tiny_transformer1(), weights, tmp_path)
    assert "incomplete" in said and f"has no matrix {missing[-1]}" in said


BESIDE = {
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": "text encoder too (1 of its",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": "text encoder too (1 of its",
    "text_encoders.t5xxl.transformer.encoder.block.0.lora_up.weight": "text encoder too (1 of its",
    "diffusion_model.double_blocks.0.img_attn.qkv.dora_scale": "DoRA",
    "diffusion_model.double_blocks.0.img_attn.qkv.diff_b": "img_attn.qkv.diff_b among them",
    "transformer_blocks.0.attn.to_q.lora_B.bias": "to_q.lora_B.bias, which is no matrix",
    "diffusion_model.double_blocks.9.img_attn.qkv.alpha": "another base",
}


@pytest.mark.parametrize("key", BESIDE)
def test_what_would_be_left_out_in_silence_is_told(tmp_path, key):
    weights = stacked(tiny_transformer(), random_lora(tiny_transformer()), "ai-toolkit")
    assert BESIDE[key] in refusal(tiny_transformer(), weights | {key: torch.ones(1)}, tmp_path)


def changed(change):
    weights = stacked(tiny_transformer(), random_lora(tiny_transformer()), "ai-toolkit")
    return weights | change(weights)


QKV = "diffusion_model.double_blocks.0.img_attn.qkv"
WRONG = {
    "wide in this base, and 576 in the adapter": lambda lora: {
        f"{QKV}.lora_B.weight": torch.cat([lora[f"{QKV}.lora_B.weight"]] * 3)
    },
    "the two matrices of double_blocks.0.img_attn.qkv are of different ranks": lambda lora: {
        f"{QKV}.lora_A.weight": lora[f"{QKV}.lora_A.weight"][:2]
    },
    "makes no sense": lambda lora: {f"{QKV}.alpha": torch.tensor(-1.0)},
    "to_q is there twice": lambda lora: {
        "transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 64),
        "transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(64, 4),
    },
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_cut_is_told(tmp_path, said):
    assert said in refusal(tiny_transformer(), changed(WRONG[said]), tmp_path)


@pytest.mark.parametrize(("settings", "said"), [('{"lora_alpha": 8}', "which alpha counts"), ("[]", "broken")])
def test_settings_that_contradict_or_are_broken_are_told(tmp_path, settings, said):
    path = tmp_path / "theirs.safetensors"
    save_file(changed(lambda lora: {}), path, {"lora_adapter_metadata": settings})
    with pytest.raises(AdapterNotFound, match=said):
        lora_adapters.rewritten(tiny_transformer(), path, tmp_path / "out")


def test_an_editor_sends_other_tools_names_to_the_import(tmp_path):
    save_file(changed(lambda lora: {}), tmp_path / "theirs.safetensors")
    with pytest.raises(AdapterNotFound, match="edit-transfer adapters import"):
        lora_adapters.wear(tiny_transformer(), [Lora(tmp_path / "theirs.safetensors")])


def test_an_export_that_cannot_be_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    dora = {"transformer_blocks.0.attn.to_q.lora_magnitude_vector": torch.ones(64)}
    save_file(random_lora(tiny_transformer()) | dora, tmp_path / "dora.safetensors")
    content = {"adapter.safetensors": (tmp_path / "dora.safetensors").read_bytes()}
    for name, kind in (("dora", "Flux2Transformer2DModel"), ("other", "SD3Transformer2DModel")):
        about = {"base": {"name": "b", "revision": "r", "class": kind}, "pairs": [], "exemplars": []}
        registry.publish(str(tmp_path / "registry"), name, content, about)
    file = str(tmp_path / "out.safetensors")
    asked = {"magnitude_vector": ("dora", file), "is for a SD3": ("other", file), "one file": ("dora", str(tmp_path))}
    for said, (name, target) in asked.items():
        done = CliRunner().invoke(app, ["adapters", "export", name, target, "--format", "ai-toolkit"])
        assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.safetensors").exists()
