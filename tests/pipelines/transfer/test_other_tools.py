"""LoRAs of other tools on small models: they do the same under any names, and what does not belong is told."""

import json
import re

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, FluxLoraLoaderMixin
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from infra import registry
from infra.cli import app
from infra.errors import AdapterNotFound
from pipelines import adapters
from pipelines.transfer import Editor, Lora, bases, conversion, loading, lorafile, rewriting
from pipelines.transfer import adapters as lora_adapters
from tests.loras import SPELLINGS, linears, pairs_of, random_lora, shapes_of, stacked, told
from tests.tiny import CONTEXT, POOLED, make_tiny_flux1, tiny_transformer, tiny_transformer1
from training.fit.lora import LoraWeights, save

RANK = 16  # of the paper's adapter
TINY = {"flux1": tiny_transformer1, "flux2": tiny_transformer}
MIXINS = {"flux1": FluxLoraLoaderMixin, "flux2": Flux2LoraLoaderMixin}


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
    path = rewriting.rewritten(make(), path, folder)[0] if folder else path
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
    written = conversion.to_ai_toolkit(type(stock).__name__, weights, {})
    stock.load_lora_adapter(mixin.lora_state_dict(written), prefix="transformer")
    for name, (down, up) in pairs_of(weights).items():
        expected.get_submodule(name).weight.data += up @ down
    torch.testing.assert_close(output(stock), output(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_what_training_saves_is_written_for_ai_toolkit(tmp_path, family):
    """With all settings that PEFT puts into the metadata, and every layer of the blocks."""
    model = TINY[family]()
    trained = LoraWeights(model, rank=4, seed=0)
    for number, weight in enumerate(trained.weights):
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.1
    path = save(model, tmp_path, "adapter.safetensors")
    with safe_open(path, framework="pt") as file:
        settings = lorafile.settings_in(file.metadata())
    assert settings["lora_alpha"] == settings["r"] == 4
    save_file(
        conversion.to_ai_toolkit(type(model).__name__, load_file(path), settings), tmp_path / "theirs.safetensors"
    )
    actual = output_with(TINY[family], tmp_path / "theirs.safetensors", tmp_path / "out")
    torch.testing.assert_close(actual, output_with(TINY[family], path), atol=1e-5, rtol=1e-5)


def test_an_alpha_keeps_small_numbers_of_half_precision():
    """1e-5 is near the end of float16, and a 64th of it would be lost."""
    name = "transformer_blocks.0.attn.to_out.0"
    down, up = torch.full((64, 64), 0.5, dtype=torch.float16), torch.full((64, 64), 1e-5, dtype=torch.float16)
    spelled = f"lora_transformer_{name.replace('.', '_')}"
    weights = {f"{spelled}.lora_down.weight": down, f"{spelled}.lora_up.weight": up}
    ours = conversion.to_ours(tiny_transformer(), weights | {f"{spelled}.alpha": torch.tensor(1.0)})
    actual = ours[f"{name}.lora_B.weight"].float() @ ours[f"{name}.lora_A.weight"].float()
    torch.testing.assert_close(actual, up.float() @ down.float() / 64, rtol=0.05, atol=0)


# ------------------------------------------------------------------------------------- the paper's adapter, end to end


@pytest.fixture(scope="module")
def flux1(tmp_path_factory):
    return make_tiny_flux1(tmp_path_factory.mktemp("flux1"))


def published(folder, path):
    """A file with the keys of the paper's adapter: ai-toolkit's, rank 16, float16, every Linear of every block."""
    weights = random_lora(loading.skeleton(folder), rank=RANK, dtype=torch.float16)
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
        rewriting.rewritten(model, path, tmp_path / "out")
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
        rewriting.rewritten(tiny_transformer(), path, tmp_path / "out")


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
