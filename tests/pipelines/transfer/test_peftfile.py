"""What PEFT itself saved is imported with the strength that its config tells, and does the same as in PEFT."""

import json
import math
import re
import shutil

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from infra.errors import AdapterNotFound
from pipelines.transfer import Lora, rewriting
from pipelines.transfer import adapters as lora_adapters
from tests.loras import pairs_of
from tests.pipelines.transfer.test_other_tools import output
from tests.tiny import tiny_transformer, tiny_transformer1

TARGETS = ["to_q", "to_k", "to_add_out", "to_qkv_mlp_proj", "proj_out"]
PATTERNS = {
    "rank_pattern": {"to_k": 2, r"transformer_blocks\.[01]\.attn\.to_add_out": 6},
    "alpha_pattern": {r".*blocks\.0\.attn\.to_q": 3, "to_k": 16},
}
CONFIGS = {
    "plain": LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS),
    "alpha": LoraConfig(r=4, lora_alpha=10, target_modules=TARGETS),
    "patterns": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, **PATTERNS),
    "rslora": LoraConfig(r=4, lora_alpha=3, target_modules=TARGETS, use_rslora=True),
    "rslora with patterns": LoraConfig(r=4, lora_alpha=3, target_modules=TARGETS, use_rslora=True, **PATTERNS),
    "fan in": LoraConfig(r=4, lora_alpha=3, target_modules=TARGETS, fan_in_fan_out=True),
    "LoKr": LoKrConfig(r=3, alpha=5, target_modules=TARGETS, alpha_pattern={"to_k": 2}),
    "whole LoKr": LoKrConfig(r=64, alpha=16, target_modules=TARGETS),
    "LoHa": LoHaConfig(r=3, alpha=2, target_modules=TARGETS, rank_pattern={"to_k": 2}),
}


@pytest.fixture
def saved(tmp_path):
    """A folder of PEFT, and what the model computes with it."""

    def save(config, make=tiny_transformer):
        folder = tmp_path / "peft"
        model = get_peft_model(make(), config)
        generator = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            if any(part in name for part in ("lora_", "lokr_", "hada_")):
                weight.data = torch.randn(weight.shape, generator=generator) * 0.2
        model.save_pretrained(folder)
        return folder, output(model.base_model.model)

    return save


def changed(folder, **settings):
    """The same folder with another config."""
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(told | settings))
    return folder


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_of_peft_does_what_it_did_there(tmp_path, saved, kind):
    folder, expected = saved(CONFIGS[kind])
    model = tiny_transformer()
    plain = output(model)
    made = rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")
    lora_adapters.wear(model, [Lora(made.path)])
    assert (output(model) - plain).abs().max() > 0.05
    torch.testing.assert_close(output(model), expected, atol=1e-4, rtol=1e-4)
    assert {"lora_A", "lora_B"} == {key.split(".")[-2] for key in load_file(made.path)}


def test_a_file_finds_its_config_beside_it_under_any_name(tmp_path, saved):
    folder, expected = saved(CONFIGS["alpha"], tiny_transformer1)
    file = shutil.move(folder / "adapter_model.safetensors", folder / "mine.safetensors")
    for given in (file, folder):
        model = tiny_transformer1()
        lora_adapters.wear(model, [Lora(rewriting.rewritten(model, given, tmp_path / "out").path)])
        torch.testing.assert_close(output(model), expected, atol=1e-4, rtol=1e-4)


def test_peft_may_have_wrapped_a_model_of_official_names(tmp_path):
    """As trainers of Black Forest Labs' own code save it: stacked layers, with the config's alpha."""
    down, up = torch.randn(4, 64), torch.randn(192, 4)
    key = "base_model.model.double_blocks.0.img_attn.qkv"
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2}))
    pairs = pairs_of(load_file(rewriting.rewritten(tiny_transformer(), tmp_path, tmp_path / "out").path))
    layers = [f"transformer.transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
    assert sorted(pairs) == sorted(layers)
    actual = torch.cat([up @ down for down, up in map(pairs.get, layers)])
    torch.testing.assert_close(actual, up @ down / 2)


UNTOLD = {
    "is a DoRA": {"use_dora": True},
    "replaces whole layers": {"modules_to_save": ["proj_out"]},
    "changes biases of the base": {"bias": "lora_only"},
    "repeats layers of the base": {"layer_replication": [[0, 1], [0, 2]]},
    "biases of its own": {"lora_bias": True},
    "no linear layers": {"target_parameters": ["experts.weight"]},
    "is a QALoRA": {"use_qalora": True},
    "began with pissa_niter_4, which changes the base": {"init_lora_weights": "pissa_niter_4"},
    "type ADALORA": {"peft_type": "ADALORA"},
    "type OFT": {"peft_type": "OFT"},
    "nan times as strong": {"lora_alpha": math.nan},
    "proj_out 0 times as strong": {"lora_alpha": 0},
    "-1 times as strong": {"lora_alpha": -4},
    "inf times as strong": {"alpha_pattern": {"to_q": math.inf}},
    "lora_alpha is '16'": {"lora_alpha": "16"},
    "lora_alpha is None": {"lora_alpha": None},
    "is of rank 4, and 8 by its settings": {"r": 8},
    "is of rank 4, and 2 by its settings": {"rank_pattern": {"to_k": 2}},
    "a pattern of its settings is broken": {"alpha_pattern": {"*to_q": 2}},
    "settings is broken|is no number": {"alpha_pattern": [1]},
}


@pytest.mark.parametrize("said", UNTOLD)
def test_what_a_plain_lora_cannot_say_is_told(tmp_path, saved, said):
    folder = changed(saved(CONFIGS["plain"])[0], **UNTOLD[said])
    with pytest.raises(AdapterNotFound, match=said):
        rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no adapter_config.json beside it"),
        (b"{", "is broken"),
        (b"[]", "it is no object"),
        (b"\xff\xfe", "is broken"),
    ],
)
def test_a_config_that_is_missing_or_broken_is_told(tmp_path, saved, content, said):
    folder, _ = saved(CONFIGS["plain"])
    if content is None:
        (folder / "adapter_config.json").unlink()
    else:
        (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(AdapterNotFound, match=said):
        rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")


def test_a_folder_without_one_file_of_weights_is_told(tmp_path, saved):
    folder, _ = saved(CONFIGS["plain"])
    weights = (folder / "adapter_model.safetensors").rename(folder / "one.safetensors")
    shutil.copy(weights, folder / "two.safetensors")
    with pytest.raises(AdapterNotFound, match=r"holds 2 files of weights and no adapter_model\.safetensors"):
        rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")
    for each in folder.glob("*.safetensors"):
        each.unlink()
    with pytest.raises(AdapterNotFound, match="holds no file of weights"):
        rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")


def test_a_pickle_is_told_with_how_to_convert_it(tmp_path, saved):
    """By its name, in a folder, and under another name."""
    folder, _ = saved(CONFIGS["plain"])
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    shutil.copy(folder / "adapter_model.bin", tmp_path / "renamed.safetensors")
    for path in (folder, folder / "adapter_model.bin", tmp_path / "renamed.safetensors"):
        with pytest.raises(AdapterNotFound, match=r"is a pickle .* convert it: safetensors\.torch\.save_file"):
            rewriting.rewritten(tiny_transformer(), path, tmp_path / "out")
    save_file(torch.load(folder / "adapter_model.bin", weights_only=True), folder / "adapter_model.safetensors")
    assert rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out").rank == 4


def test_a_folder_for_another_base_is_told(tmp_path, saved):
    folder, _ = saved(CONFIGS["plain"], tiny_transformer1)
    with pytest.raises(AdapterNotFound, match="made for another base"):
        rewriting.rewritten(tiny_transformer(), folder, tmp_path / "out")
    (tmp_path / "language").mkdir()
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    of_language = {f"{layer}.lora_A.weight": torch.ones(4, 64), f"{layer}.lora_B.weight": torch.ones(64, 4)}
    save_file(of_language, tmp_path / "language" / "adapter_model.safetensors")
    shutil.copy(folder / "adapter_config.json", tmp_path / "language")
    with pytest.raises(AdapterNotFound, match="made for another base"):
        rewriting.rewritten(tiny_transformer(), tmp_path / "language", tmp_path / "out")


def test_an_editor_sends_a_file_of_peft_to_the_import(saved):
    folder, _ = saved(CONFIGS["plain"])
    said = re.escape("is written as PEFT does it. Take it into the registry with `edit-transfer adapters import`")
    with pytest.raises(AdapterNotFound, match=said):
        lora_adapters.wear(tiny_transformer(), [Lora(folder / "adapter_model.safetensors")])
