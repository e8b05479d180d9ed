"""An adapter is a LoRA in a file: it changes pixels if it says something, and only a base that it fits takes it."""

import hashlib
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file

from infra.errors import AdapterNotFound
from pipelines.transfer import Editor, bases
from tests.tiny import tiny_transformer

TARGETS = ["to_q", "to_v", "to_qkv_mlp_proj", "to_out.0"]


def save_adapter(folder: Path, deviation: float, transformer=None) -> Path:
    """A LoRA whose B matrices are random, or zero; as diffusers itself saves it."""
    transformer = transformer or tiny_transformer()
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    generator = torch.Generator().manual_seed(0)
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
