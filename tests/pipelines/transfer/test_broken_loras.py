"""A LoRA that would make black pictures, or cannot be read, is refused wherever it is given, and says which layer."""

import itertools
import json
import math
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.errors import AdapterNotFound
from pipelines.transfer import Editor, Lora, conversion, rewriting
from pipelines.transfer import adapters as lora_adapters
from tests.loras import pairs_of, random_lora, stacked
from tests.tiny import tiny_transformer

LAYER = "transformer_blocks.1.attn.to_k"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def lora(dtype=torch.float32, seed=0) -> dict[str, torch.Tensor]:
    return {
        key: value for key, value in random_lora(tiny_transformer(), dtype=dtype, seed=seed).items() if ".attn." in key
    }


def with_number(number: float, key: str = f"{LAYER}.lora_B.weight", dtype=torch.float32) -> dict[str, torch.Tensor]:
    weights = lora(dtype)
    weights[key][-1, -1] = number
    return weights


def kohya(**alphas) -> dict[str, torch.Tensor]:
    return stacked(tiny_transformer(), random_lora(tiny_transformer()), "kohya") | alphas


def saved(weights, path, metadata=None):
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)
    return path


def refused_at_import(path, tmp_path) -> str:
    with pytest.raises(AdapterNotFound) as refused:
        rewriting.rewritten(tiny_transformer(), path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(refused.value)


def refused_everywhere(path, tmp_path) -> str:
    """What is said of a file by an import, and by a transformer, which then wears nothing."""
    said = refused_at_import(path, tmp_path)
    model = tiny_transformer()
    with pytest.raises(AdapterNotFound):
        lora_adapters.wear(model, [Lora(path)])
    assert not getattr(model, "peft_config", None)
    return said


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", "AB")
def test_a_weight_that_is_no_number_is_refused_with_its_layer(tmp_path, number, dtype, side):
    path = saved(with_number(number, f"{LAYER}.lora_{side}.weight", dtype), tmp_path / "bad.safetensors")
    assert f"{LAYER} has weights that are no numbers" in refused_everywhere(path, tmp_path)


def test_large_numbers_are_numbers(tmp_path):
    """Even where their sum is none."""
    weights = {key: torch.full_like(value, 3e38) for key, value in lora().items()}
    assert rewriting.rewritten(tiny_transformer(), saved(weights, tmp_path / "a.safetensors"), tmp_path / "out")


def test_an_editor_refuses_it_and_goes_on_without(tiny_base, tmp_path, scene):
    """Put on first, and in place of one of the same shapes, where only weights change places."""
    bad, good = (
        saved(weights, tmp_path / f"{number}.safetensors")
        for number, weights in enumerate((with_number(math.nan), lora()))
    )
    with pytest.raises(AdapterNotFound, match=r"transformer_blocks\.1\.attn\.to_k has weights that are no numbers"):
        Editor.load(tiny_base, adapter=bad)
    editor = Editor.load(tiny_base)

    def edited() -> bytes:
        prefix = editor.remember([(scene(1, (64, 64)), scene(2, (64, 64)))])
        return editor.edit([scene(3, (64, 64))], prefix, seeds=[5])[0].tobytes()

    plain = edited()
    editor.wear([Lora(good)])
    assert edited() != plain
    with pytest.raises(AdapterNotFound, match="no numbers"):
        editor.wear([Lora(bad)])
    assert edited() == plain and editor.adapter_digest is None


def test_beside_others_it_leaves_them_as_they_are(tmp_path):
    """As the endpoint hangs adapters into one transformer."""
    model = tiny_transformer()
    bad, good = (
        saved(weights, tmp_path / f"{number}.safetensors")
        for number, weights in enumerate((with_number(math.inf), lora()))
    )
    lora_adapters.hang(model, Lora(good), "good")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(AdapterNotFound, match="no numbers"):
        lora_adapters.hang(model, Lora(bad), "bad")
    after = dict(model.named_parameters())
    assert list(model.peft_config) == ["good"] and before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    lora_adapters.hang(model, Lora(good), "bad")
    assert sorted(model.peft_config) == ["bad", "good"]


# -------------------------------------------------------------------------------------------------------------- alpha

SPELLED = "lora_unet_double_blocks_0_img_attn_proj"
ALPHAS = {
    "nan times as strong": torch.tensor(math.nan),
    "inf times as strong": torch.tensor(math.inf),
    "0 times as strong": torch.tensor(0.0),
    "-0.5 times as strong": torch.tensor(-2.0),
    "no single number, but of shape (2,)": torch.ones(2),
    "no single number, but of shape (0,)": torch.ones(0),
}


@pytest.mark.parametrize("said", ALPHAS)
def test_an_alpha_that_makes_no_sense_is_told_with_its_layer(tmp_path, said):
    path = saved(kohya(**{f"{SPELLED}.alpha": ALPHAS[said]}), tmp_path / "bad.safetensors")
    told = refused_everywhere(path, tmp_path)
    assert said in told and "double_blocks_0_img_attn_proj" in told


@pytest.mark.parametrize(
    "alpha",
    [
        torch.tensor([2.0]),
        torch.tensor([[2.0]]),
        torch.tensor(2),
        *(torch.tensor(2.0, dtype=dtype) for dtype in DTYPES),
    ],
    ids=str,
)
def test_an_alpha_may_be_of_any_shape_and_type(alpha):
    weights = kohya()
    plain = pairs_of(conversion.to_ours(tiny_transformer(), weights))
    scaled = pairs_of(conversion.to_ours(tiny_transformer(), weights | {f"{SPELLED}.alpha": alpha}))
    layer = "transformer_blocks.0.attn.to_out.0"
    for name, (down, up) in plain.items():
        strength = 2 / 4 if name == layer else 1
        torch.testing.assert_close(scaled[name][1] @ scaled[name][0], strength * up @ down)


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": math.nan},
        {"lora_alpha": math.inf},
        {"lora_alpha": 0},
        {"lora_alpha": "eight"},
        {"alpha_pattern": {"to_k": -1}},
        {"alpha_pattern": {"to_k": math.nan}},
    ],
    ids=str,
)
def test_so_is_one_in_the_settings_that_diffusers_keeps(tmp_path, settings):
    told = {"r": 4, "lora_alpha": 4, "target_modules": ["to_k"]} | settings
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    assert "metadata are broken" in refused_everywhere(saved(lora(), tmp_path / "bad.safetensors", metadata), tmp_path)


def test_an_alpha_that_leaves_the_range_of_float16_is_told(tmp_path):
    """The file is all numbers; what it means is not."""
    weights = {key: value.half() for key, value in kohya().items()}
    weights[f"{SPELLED}.lora_up.weight"].fill_(60000.0)
    path = saved(weights | {f"{SPELLED}.alpha": torch.tensor(400.0)}, tmp_path / "bad.safetensors")
    assert "transformer_blocks.0.attn.to_out.0 has weights that are no numbers" in refused_at_import(path, tmp_path)
    wide = {key: value.bfloat16() for key, value in weights.items()}
    path = saved(wide | {f"{SPELLED}.alpha": torch.tensor(400.0)}, tmp_path / "good.safetensors")
    assert rewriting.rewritten(tiny_transformer(), path, tmp_path / "out").rank > 0


def test_so_is_what_leaves_it_in_a_base_of_float16(tmp_path):
    path = saved(with_number(1e5), tmp_path / "wide.safetensors")
    lora_adapters.wear(tiny_transformer(), [Lora(path)])
    with pytest.raises(AdapterNotFound, match=f"{LAYER} has weights that are no numbers"):
        lora_adapters.wear(tiny_transformer().half(), [Lora(path)])


# ------------------------------------------------------------------------------------------------------------- shapes

DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
SHAPES = {
    "a matrix of transformer_blocks.1.attn.to_k is empty": {DOWN: torch.ones(0, 64), UP: torch.ones(64, 0)},
    "is empty": {DOWN: torch.ones(4, 0)},
    "of different ranks": {DOWN: torch.ones(3, 64)},
    "no matrices of one rank": {DOWN: torch.ones(4, 64, 1, 1), UP: torch.ones(64, 4, 1, 1)},
    "has no matrices": {DOWN: torch.tensor(1.0), UP: torch.tensor(1.0)},
    "is 64 wide here, and 32": {DOWN: torch.ones(4, 32)},
    "is of type I8": {DOWN: torch.ones(4, 64, dtype=torch.int8)},
    "is of type C64": {DOWN: torch.ones(4, 64, dtype=torch.complex64)},
}


@pytest.mark.parametrize("said", SHAPES)
def test_shapes_and_types_that_are_no_lora_are_told(tmp_path, said):
    assert said in refused_everywhere(saved(lora() | SHAPES[said], tmp_path / "bad.safetensors"), tmp_path)


# -------------------------------------------------------------------------------------------------------------- names


def test_keys_with_the_prefix_and_without_in_one_file_are_one_lora(tmp_path):
    weights, prefixes = lora(), itertools.cycle(["transformer.", ""])
    mixed = {f"{next(prefixes)}{key}": value for key, value in weights.items()}
    path = saved(mixed, tmp_path / "mixed.safetensors")
    made = load_file(rewriting.rewritten(tiny_transformer(), path, tmp_path / "out").path)
    assert made.keys() == {f"transformer.{key}" for key in weights}
    assert all(torch.equal(made[f"transformer.{key}"], value) for key, value in weights.items())
    with pytest.raises(AdapterNotFound, match="adapters import"):
        lora_adapters.wear(tiny_transformer(), [Lora(path)])


def test_names_of_two_tools_in_one_file_are_one_lora(tmp_path):
    weights = lora()
    theirs = {key: value for key, value in kohya().items() if "double_blocks_0_img_attn_proj" in key}
    path = saved({k: v for k, v in weights.items() if ".0.attn.to_out" not in k} | theirs, tmp_path / "two.safetensors")
    made = pairs_of(load_file(rewriting.rewritten(tiny_transformer(), path, tmp_path / "out").path))
    assert "transformer.transformer_blocks.0.attn.to_out.0" in made
    layers = {name for name in pairs_of(weights) if ".0.attn.to_out" not in name}
    assert {name.removeprefix("transformer.") for name in made} > layers


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "lycoris_"])
def test_one_matrix_under_two_names_is_told(tmp_path, prefix):
    name = DOWN.replace(".lora_A.weight", "").replace(".", "_" if prefix.endswith("_") else ".")
    other = {f"{prefix}{name}.lora_down.weight": torch.ones(4, 64), f"{prefix}{name}.lora_up.weight": torch.ones(64, 4)}
    assert "is there twice" in refused_everywhere(saved(lora() | other, tmp_path / "bad.safetensors"), tmp_path)


# -------------------------------------------------------------------------------------------------------------- files


def as_file(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def lying(**told) -> bytes:
    entry = {"dtype": "F32", "shape": [4, 64], "data_offsets": [0, 1024]} | told
    return as_file(json.dumps({DOWN: entry}).encode(), bytes(1024))


FILES = {
    "empty": b"",
    "cut in the length": b"\x10\x00",
    "cut in the header": as_file(b'{"a": {"dtype"', length=400),
    "a header of an exabyte": as_file(b"{}", length=2**60),
    "a header that is no JSON": as_file(b"not json"),
    "more shape than bytes": lying(shape=[4, 6400]),
    "offsets beyond the end": lying(data_offsets=[0, 4096]),
    "offsets backwards": lying(data_offsets=[1024, 0]),
    "an unknown type": lying(dtype="F13"),
    "cut in the weights": lying()[:-10],
    "a web page": b"<!doctype html><html>Sign in to download</html>",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_or_lies_is_told(tmp_path, kind):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(FILES[kind])
    assert "is broken" in refused_everywhere(path, tmp_path)


def test_a_folder_where_a_file_is_meant_is_told(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    refused_everywhere(tmp_path / "folder.safetensors", tmp_path)
