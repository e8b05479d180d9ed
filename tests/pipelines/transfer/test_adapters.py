"""An adapter is a LoRA in a file: it changes pixels if it says something, and only a base that it fits takes it."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import AdapterNotFound
from pipelines import adapters
from pipelines.transfer import Editor, Lora, bases, rewriting
from tests.tiny import tiny_transformer

TARGETS = ["to_q", "to_v", "to_qkv_mlp_proj", "to_out.0"]


def save_adapter(folder: Path, deviation: float, transformer=None, *, seed=0, rank=4, alpha=8, targets=TARGETS) -> Path:
    """A LoRA whose B matrices are random, or zero; as diffusers itself saves it."""
    transformer = transformer or tiny_transformer()
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in transformer.named_parameters():
        if "lora_" in name:
            spread = 0.1 if "lora_A" in name else deviation
            weight.data = torch.randn(weight.shape, generator=generator) * spread
    transformer.save_lora_adapter(folder, weight_name="adapter.safetensors")
    return folder / "adapter.safetensors"


def edit(editor: Editor, scene) -> bytes:
    prefix = editor.remember([(scene(1, (64, 64)), scene(2, (64, 64)))])
    return editor.edit([scene(3, (64, 64))], prefix, seeds=[5])[0].tobytes()


@pytest.mark.parametrize("attention", ["prefix", "full"])
def test_an_adapter_changes_pixels_unless_it_is_zero(tiny_base, tmp_path, scene, attention):
    said, nothing = save_adapter(tmp_path / "said", 0.1), save_adapter(tmp_path / "nothing", 0.0)
    plain = edit(Editor.load(tiny_base, attention=attention), scene)
    assert edit(Editor.load(tiny_base, adapter=nothing, attention=attention), scene) == plain
    changed = edit(Editor.load(tiny_base, adapter=said, attention=attention), scene)
    assert changed != plain
    assert edit(Editor.load(tiny_base, adapter=str(said), attention=attention), scene) == changed


def test_the_bundled_base_takes_an_adapter(tmp_path, scene):
    from diffusers import Flux2Transformer2DModel

    path = save_adapter(tmp_path, 0.1, Flux2Transformer2DModel.from_pretrained(bases.BUNDLED / "transformer"))
    adapted = Editor.load(adapter=path, device="cpu", dtype=torch.float32)
    assert edit(adapted, scene) != edit(Editor.load(device="cpu", dtype=torch.float32), scene)


def test_the_editor_knows_its_adapters_digest(tiny_base, tmp_path):
    path = save_adapter(tmp_path, 0.1)
    assert Editor.load(tiny_base, adapter=path).adapter_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Editor.load(tiny_base).adapter_digest is None


def test_keys_that_a_pipeline_wrote_do_as_well(tiny_base, tmp_path, scene):
    """A pipeline puts the name of the part before every key; without settings in the metadata alpha is the rank."""
    path = save_adapter(tmp_path, 0.1)
    bare, prefixed = tmp_path / "bare.safetensors", tmp_path / "prefixed.safetensors"
    save_file(load_file(path), bare)
    save_file({f"transformer.{key}": value for key, value in load_file(path).items()}, prefixed)
    results = {edit(Editor.load(tiny_base, adapter=file), scene) for file in (bare, prefixed)}
    assert len(results) == 1 and edit(Editor.load(tiny_base), scene) not in results


def test_a_missing_or_broken_file_is_told(tiny_base, tmp_path):
    with pytest.raises(AdapterNotFound, match=r"no adapter file at .*gone\.safetensors"):
        Editor.load(tiny_base, adapter=tmp_path / "gone.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(AdapterNotFound, match="broken"):
        Editor.load(tiny_base, adapter=broken)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(AdapterNotFound, match="safetensors"):
        Editor.load(tiny_base, adapter=picture)
    weights = tmp_path / "weights.safetensors"
    save_file({"x_embedder.weight": torch.zeros(2, 2)}, weights)
    with pytest.raises(AdapterNotFound, match="no LoRA"):
        Editor.load(tiny_base, adapter=weights)


def test_an_adapter_of_another_base_is_refused(tiny_base, tmp_path):
    """Of more layers than this base has, and of other widths."""
    weights = load_file(save_adapter(tmp_path, 0.1))
    deeper, wider = tmp_path / "deeper.safetensors", tmp_path / "wider.safetensors"
    save_file(weights | {"transformer_blocks.9.attn.to_q.lora_A.weight": torch.zeros(4, 64)}, deeper)
    with pytest.raises(AdapterNotFound, match=r"another base.*transformer_blocks\.9"):
        Editor.load(tiny_base, adapter=deeper)
    save_file({key: torch.cat([value] * 2, int("lora_A" in key)) for key, value in weights.items()}, wider)
    with pytest.raises(AdapterNotFound, match="does not fit this base"):
        Editor.load(tiny_base, adapter=wider)


def test_another_adapter_is_put_on_as_if_freshly_loaded(tiny_base, tmp_path, scene):
    """Of the same shapes, where only weights change places; of another alpha, rank, of other layers; and none."""
    paths = [save_adapter(tmp_path / str(index), 0.1, seed=index) for index in range(2)]
    paths.append(save_adapter(tmp_path / "rank", 0.1, rank=8))
    paths.append(save_adapter(tmp_path / "layers", 0.1, targets=["to_q"]))
    paths.append(save_adapter(tmp_path / "alpha", 0.1, alpha=2))
    warm = Editor.load(tiny_base)
    plain = edit(warm, scene)
    seen = set()
    for index in (0, 1, 0, 4, 2, 3, 1):
        warm.wear([Lora(paths[index])])
        fresh = Editor.load(tiny_base, adapter=paths[index])
        assert edit(warm, scene) == edit(fresh, scene) and warm.adapter_digest == fresh.adapter_digest
        seen.add(edit(warm, scene))
    assert len(seen) == 5
    warm.wear([])
    assert edit(warm, scene) == plain and warm.adapter_digest is None


def test_adapters_stack_and_have_scales(tiny_base, tmp_path, scene):
    """Twice at half strength is once; none at all is the base; the order does not matter to the eye."""
    one, two = (save_adapter(tmp_path / str(index), 0.1, seed=index) for index in range(2))
    worn = {
        "none": [],
        "off": [Lora(one, 0.0)],
        "one": [Lora(one)],
        "halves": [Lora(one, 0.5), Lora(one, 0.5)],
        "half": [Lora(one, 0.5)],
        "both": [Lora(one), Lora(two)],
        "swapped": [Lora(two), Lora(one)],
    }
    results, digests = {}, {}
    for name, loras in worn.items():
        editor = Editor.load(tiny_base, adapter=loras)
        results[name], digests[name] = np.frombuffer(edit(editor, scene), np.uint8).astype(int), editor.adapter_digest
    assert (results["none"] == results["off"]).all()
    for same, other in (("one", "halves"), ("both", "swapped")):
        assert abs(results[same] - results[other]).max() <= 1
    different = [results[name] for name in ("none", "one", "half", "both")]
    assert all(abs(a - b).max() > 1 for a, b in itertools.combinations(different, 2))
    assert len(set(digests.values())) == len(worn)


def test_a_failed_change_leaves_no_adapter_on(tiny_base, tmp_path, scene):
    editor = Editor.load(tiny_base)
    plain = edit(editor, scene)
    editor.wear([Lora(save_adapter(tmp_path / "good", 0.1))])
    with pytest.raises(AdapterNotFound):
        editor.wear([Lora(tmp_path / "gone.safetensors")])
    weights = load_file(tmp_path / "good" / "adapter.safetensors")
    deeper = tmp_path / "deeper.safetensors"
    save_file(weights | {"transformer_blocks.9.attn.to_q.lora_A.weight": torch.zeros(4, 64)}, deeper)
    with pytest.raises(AdapterNotFound):
        editor.wear([Lora(deeper)])
    assert edit(editor, scene) == plain and editor.adapter_digest is None


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_lora_of_stock_diffusers_is_imported_and_computes_the_same(tiny_base, tmp_path, scene, monkeypatch, prefixed):
    """As a model saves it, and as a pipeline does; what lies in the registry is then plain diffusers again."""
    path = save_adapter(tmp_path / "stock", 0.1)
    if prefixed:
        Flux2KleinPipeline.save_lora_weights(
            tmp_path / "pipeline",
            transformer_lora_layers=load_file(path),
            transformer_lora_adapter_metadata={"r": 4, "lora_alpha": 8, "target_modules": TARGETS},
        )
        path = tmp_path / "pipeline" / "pytorch_lora_weights.safetensors"
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    told = CliRunner().invoke(
        app, ["adapters", "import", str(path), "--name", "stock", "--base", str(tiny_base), "--json"]
    )
    assert told.exit_code == 0, told.stderr
    [worn] = adapters.find(str(tmp_path / "registry"), ["stock"], 1.0, bases.revision_of(tiny_base))
    loras = adapters.loras([worn], tmp_path / "cache")
    assert worn.attention == "full" and worn.version.about["rank"] == 4
    imported = Editor.load(tiny_base, adapter=loras, attention="full")
    assert edit(imported, scene) == edit(Editor.load(tiny_base, adapter=path, attention="full"), scene)
    stock, expected = tiny_transformer(), tiny_transformer()
    stock.load_lora_adapter(loras[0].path.parent, weight_name=loras[0].path.name)
    expected.load_lora_adapter(path.parent, weight_name=path.name, prefix="transformer" if prefixed else None)
    outputs = [_output(model) for model in (stock, expected)]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)


def test_a_lora_whose_alpha_nobody_knows_is_not_imported(tiny_base, tmp_path):
    """PEFT keeps it in a file beside; without it the adapter would be worn at another strength, in silence."""
    weights = load_file(save_adapter(tmp_path, 0.1))
    save_file({f"base_model.model.{key}": value for key, value in weights.items()}, tmp_path / "peft.safetensors")
    with pytest.raises(AdapterNotFound, match="alpha"):
        rewriting.rewritten(tiny_transformer(), tmp_path / "peft.safetensors", tmp_path / "out")


def test_what_cannot_be_imported_is_one_sentence(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    wider = tmp_path / "wider.safetensors"
    weights = load_file(save_adapter(tmp_path, 0.1))
    save_file({key: torch.cat([value] * 2, int("lora_A" in key)) for key, value in weights.items()}, wider)
    for file, said in ((tmp_path / "gone.safetensors", "no adapter file"), (wider, "does not fit this base")):
        told = CliRunner().invoke(app, ["adapters", "import", str(file), "--name", "x", "--base", str(tiny_base)])
        assert told.exit_code == 2 and said in told.stderr and "Traceback" not in told.stderr
    assert not list((tmp_path / "registry").rglob("*.json"))


def _output(model):
    with torch.no_grad():
        return model(
            hidden_states=torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(0)),
            encoder_hidden_states=torch.zeros(1, 1, 16),
            timestep=torch.full((1,), 0.7),
            img_ids=torch.cartesian_prod(torch.tensor([0]), torch.arange(2), torch.arange(4), torch.tensor([0])),
            txt_ids=torch.zeros(1, 4),
            guidance=None,
        ).sample
