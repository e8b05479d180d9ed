"""What a base takes of a GPU's memory, counted without it and checked against what it takes."""

import json
from pathlib import Path

import pytest
import torch

from infra.errors import BaseNotFound
from pipelines.transfer import bases, loading
from pipelines.transfer.family import Family
from pipelines.transfer.footprint import (
    RANK,
    Footprint,
    Outlined,
    Slope,
    footprints,
    layer_bytes,
    nbytes,
    outlined,
    packed_bytes,
)
from pipelines.transfer.layout import Attention
from pipelines.transfer.passes import remember
from pipelines.transfer.tuning import light_layers
from pipelines.tuning import Tuning
from tests.tiny import make_tiny_base, make_tiny_flux1
from training.fit.lora import LoraWeights

CPU = torch.device("cpu")
MAKERS = {"flux1": make_tiny_flux1, "flux2": make_tiny_base}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request, tmp_path_factory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def loaded(folder) -> Family:
    return loading.load_family(folder, CPU, torch.bfloat16)


def bare(family: Family, attention: Attention = "prefix", side: int = 64, compact: int = 1) -> Outlined:
    return Outlined(family=family, attention=attention, size=(side, side), compact=compact, pairs=1, adapter=0)


def counted(outline: Outlined, tuning: Tuning | None = None) -> Footprint:
    return footprints(outline, [tuning or Tuning()])[0]


def test_weights_are_those_of_the_loaded_models(folder, loaded):
    footprint = counted(outlined(folder))
    assert footprint.transformer == nbytes(loaded.transformer)
    assert footprint.vae == nbytes(loaded.vae)


def test_adapters_are_those_that_training_makes(folder):
    transformer = loading.load_family(folder, CPU, torch.bfloat16).transformer
    floats = sum(weight.numel() for weight in LoraWeights(transformer, RANK, 0).weights)
    assert counted(outlined(folder)).adapter == 2 * floats
    assert counted(outlined(folder, ranks=(RANK, 2 * RANK))).adapter == 3 * 2 * floats


def test_kept_are_the_keys_and_values(folder, loaded):
    grid, tokens = (4, 4), torch.randn(1, 16, loaded.channels, dtype=torch.bfloat16)
    footprint = counted(outlined(folder))
    with torch.no_grad():
        prefix = remember(loaded, [(tokens, tokens)], [(grid, grid)], "prefix")
        query = loaded.run_clean(tokens, [prefix.layout(grid).query], prefix.segments)
    assert (footprint.pair, footprint.query) == (prefix.nbytes, query.nbytes)


@pytest.mark.parametrize("attention", ["prefix", "full", "joint"])
def test_passes_take_on_meta_what_they_take_when_they_compute(folder, loaded, attention, monkeypatch):
    """But for a few bytes: flash attention also returns the state of its random numbers."""
    monkeypatch.setattr("pipelines.transfer.invariance._batched", lambda x: True)  # as on a GPU
    meta = counted(bare(loading.outline(folder, torch.bfloat16), attention))
    computed = counted(bare(loaded, attention))
    assert (meta.pair, meta.query) == (computed.pair, computed.query)
    for name, slope in meta.passes.items():
        assert slope.at(3) == pytest.approx(computed.passes[name].at(3), rel=0.001), name


def test_batches_grow_evenly(folder, loaded, monkeypatch):
    """What is told of any batch follows from batches of one and two."""
    outline = bare(loading.outline(folder, torch.bfloat16))
    told = counted(outline)
    monkeypatch.setattr("pipelines.transfer.footprint.BATCHES", (1, 4))
    seen = counted(outline)
    for name in ("query", "step", "encode", "decode"):
        assert told.passes[name].at(4) == pytest.approx(seen.passes[name].at(4), rel=0.01), name
    assert told.query == seen.query
    sums = [told.at(batch) for batch in range(1, 65)]
    assert sums == sorted(sums) and told.largest(told.at(5), 64) == 5 and told.largest(told.at(1) - 1, 64) == 0


def test_quantised_are_the_linear_layers_of_the_blocks_and_modulations_have_8_bits(folder):
    transformer = loading.skeleton(folder).bfloat16()
    full, light = layer_bytes(transformer), layer_bytes(transformer, "int8")
    shrunk = {name for name in full if light[name] < full[name]}
    assert "transformer_blocks.0.attn.to_q" in shrunk and all("transformer_blocks." in name for name in shrunk)
    bits = light_layers(transformer, "int4")
    assert shrunk == set(bits) and {bits[name] for name in bits if ".norm" in name} <= {"int8"}
    assert {bits[name] for name in bits if ".norm" not in name} == {"int4"}


@pytest.mark.parametrize("weights", ["int8", "float8"])
def test_light_weights_are_those_of_torchao(folder, weights):
    light = loading.load_family(folder, CPU, torch.bfloat16, tuned=Tuning(weights=weights)).transformer
    taken = sum(sum(part.nbytes for part in _parts(weight)) for weight in light.state_dict().values())
    assert counted(outlined(folder), Tuning(weights=weights)).transformer == taken


def _parts(weight: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a weight of torchao is made of."""
    if not hasattr(weight, "__tensor_flatten__"):
        return [weight]
    return [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]


def test_four_bits_come_in_groups_and_tiles():
    assert packed_bytes(8, 1024, "int4") == 8 * 1024 // 2 + 8 * 8 * 4
    assert packed_bytes(7, 1000, "int4") == packed_bytes(8, 1024, "int4")


def test_offloading_leaves_two_blocks_on_the_gpu(folder, loaded):
    blocks = [*loaded.transformer.transformer_blocks, *loaded.transformer.single_transformer_blocks]
    sizes = [nbytes(block) for block in blocks]
    rest = nbytes(loaded.transformer) - sum(sizes)
    assert counted(outlined(folder), Tuning(offload=True)).transformer == rest + 2 * max(sizes)


def test_tiles_take_less_where_images_are_larger_than_they_are(folder):
    family = loading.outline(folder, torch.bfloat16)
    family.vae.tile_sample_min_size, family.vae.tile_latent_min_size = 64, 8
    whole, tiled = footprints(bare(family, side=128), [Tuning(), Tuning(tiling=True)])
    assert tiled.passes["decode"].at(1) < whole.passes["decode"].at(1) / 2
    assert tiled.passes["step"] == whole.passes["step"]


def test_compact_pairs_keep_a_quarter(folder):
    family = loading.outline(folder, torch.bfloat16)
    assert counted(bare(family, compact=2)).pair == counted(bare(family)).pair // 4


def test_the_worst_pass_decides():
    passes = {"step": Slope(0, 10), "decode": Slope(100, 0)}
    footprint = Footprint(
        tuning=Tuning(), transformer=1000, vae=0, adapter=0, scratch=0, pair=25, pairs=2, query=20, passes=passes
    )
    assert (footprint.worst(1), footprint.at(1)) == ("decode", 1150)
    assert (footprint.worst(9), footprint.at(9)) == ("step", 1000 + 50 + 180 + 90)


def test_parts_that_do_not_fit_together_are_told(tmp_path):
    folder = make_tiny_base(tmp_path)
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latent_channels": 16}))
    with pytest.raises(BaseNotFound, match="do not fit together"):
        counted(outlined(folder))


def test_a_configuration_that_makes_no_model_is_told(tmp_path):
    folder = make_tiny_flux1(tmp_path)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": "many"}))
    with pytest.raises(BaseNotFound, match="makes no model"):
        outlined(folder)
    path.unlink()
    with pytest.raises(BaseNotFound, match=r"no transformer/config\.json"):
        bases.find_base(folder)
