"""Less memory or less time: what each option of a tuning does, and what it leaves alone."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from math import isqrt

import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import group_offloading
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from PIL import Image
from torch import nn
from torch._dynamo.utils import counters

from infra.errors import BaseNotFound, UsageError
from pipelines.transfer import Editor, Lora, Tuning
from pipelines.transfer.attention import blocks_of
from pipelines.transfer.family import Prompt
from pipelines.transfer.tuning import compile_blocks, light_layers
from tests.tiny import CONTEXT, POOLED, make_tiny_base, make_tiny_flux1, tiny_transformer, tiny_transformer1
from training import scenes
from training.evaluation.suite import to_image
from training.fit.lora import LoraWeights, save

FAMILIES = {"flux1": make_tiny_flux1, "flux2": make_tiny_base}
STEPS = 12


def picture(seed: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)


def edited(editor: Editor, count: int = 2, steps: int = 2, size: tuple[int, int] = (48, 32)) -> list[np.ndarray]:
    prefix = editor.remember([(picture(100, size), picture(101, size))])
    queries = [picture(number, size) for number in range(count)]
    return [np.asarray(image, int) for image in editor.edit(queries, prefix, seeds=list(range(count)), steps=steps)]


def same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all((one == other).all() for one, other in zip(some, others, strict=True))


def apart(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Mean difference in levels."""
    return float(np.mean([np.abs(one - other).mean() for one, other in zip(some, others, strict=True)]))


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request, tmp_path_factory):
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("base"))
    told = json.loads((folder / "edit_transfer.json").read_text())
    (folder / "edit_transfer.json").write_text(json.dumps(told | {"residuals": [1.0] * STEPS}))
    return folder


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    transformer = Editor.load(folder).family.transformer
    for weight in LoraWeights(transformer, 4, 0).weights:
        nn.init.normal_(weight, std=0.3)
    return save(transformer, tmp_path_factory.mktemp("lora"), "lora.safetensors")


@pytest.mark.parametrize("weights", ["int8", "float8"])
def test_light_weights_take_a_quarter_of_float32_and_change_little(folder, lora, weights):
    full, light = Editor.load(folder), Editor.load(folder, tuned=Tuning(weights=weights))
    names = light_layers(full.family.transformer, weights)
    assert len(names) > 20 and set(names.values()) == {weights}
    taken = {editor: sum(_nbytes(editor.family.transformer.get_submodule(name).weight) for name in names)
             for editor in (full, light)}  # fmt: skip
    assert 0.24 < taken[light] / taken[full] < 0.27  # one scale a row beside a byte a weight
    bare, results = edited(full), edited(light)
    assert 0 < apart(bare, results) < 1
    light.wear([Lora(lora, 0.0)])
    assert same(edited(light), results)
    light.wear([Lora(lora)])
    full.wear([Lora(lora)])
    assert 2 * apart(edited(light), edited(full)) < apart(edited(light), results)
    light.wear([])
    assert same(edited(light), results)


def _nbytes(weight: torch.Tensor) -> int:
    parts = getattr(weight, "tensor_data_names", None)
    return sum(getattr(weight, part).nbytes for part in parts) if parts else weight.nbytes


@pytest.mark.parametrize("make", [pytest.param(make_tiny_flux1, marks=pytest.mark.slow), make_tiny_base])
def test_a_compiled_block_serves_all_layers(make, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pipelines.transfer.invariance._batched", lambda x: True
    )  # as on a GPU, and in what is compiled
    graphs = []
    for layers in (2, 3):
        folder = make(tmp_path / str(layers))
        (tiny_transformer if make is make_tiny_base else tiny_transformer1)(layers=layers).save_pretrained(
            folder / "transformer"
        )
        plain, compiled = Editor.load(folder), Editor.load(folder)
        torch.compiler.reset()
        counters.clear()
        compile_blocks(compiled.family.transformer, backend="eager")
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            assert same(edited(compiled), edited(plain))
        assert not counters["graph_break"]
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] >= 2 * 3  # two kinds of blocks; a pair's, a query's and a result's pass
    torch.compiler.reset()


@pytest.mark.slow
def test_kernels_are_kept_for_the_next_process(tiny_base, tmp_path):
    import subprocess

    script = (
        "import sys; from infra.settings import keep_compiled; keep_compiled(sys.argv[2])\n"
        "from pipelines.transfer import Editor, Tuning\n"
        "from tests.pipelines.transfer.test_tuning import edited, same\n"
        "from torch._dynamo.utils import counters\n"
        "plain, fast = Editor.load(sys.argv[1]), Editor.load(sys.argv[1], tuned=Tuning(compile=True))\n"
        "from tests.pipelines.transfer.test_tuning import apart\n"
        "assert apart(edited(plain), edited(fast)) < 0.1\n"
        "print(counters['inductor']['fxgraph_cache_hit'], counters['inductor']['fxgraph_cache_miss'])\n"
    )
    command = [sys.executable, "-c", script, str(tiny_base), str(tmp_path)]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    assert (int(told[0][0]), int(told[1][1])) == (0, 0) and int(told[0][1]) == int(told[1][0]) > 0


@pytest.mark.parametrize("cache", ["first-block", "taylorseer", "magcache"])
@pytest.mark.parametrize("text", [False, True])
def test_a_step_cache_leaves_steps_out_and_clean_blocks_alone(folder, lora, cache, text, monkeypatch):
    usual = diffusers.FirstBlockCacheConfig  # random weights change more from step to step than trained ones
    monkeypatch.setattr(diffusers, "FirstBlockCacheConfig", lambda: usual(threshold=0.5))
    if cache == "first-block" and "Flux2" in (folder / "transformer" / "config.json").read_text():
        with pytest.raises(UsageError, match="first-block does not work on a Flux2Transformer2DModel"):
            Editor.load(folder, tuned=Tuning(step_cache=cache))
        return
    full, saving = Editor.load(folder, adapter=lora), Editor.load(folder, adapter=lora, tuned=Tuning(step_cache=cache))
    if text:
        for editor in (full, saving):
            editor.say(replace(_prompt(1), negative=_prompt(2), guidance=3.0))
    expected, passes = edited(full, steps=STEPS), []
    saving.family.transformer.transformer_blocks[1].attn.register_forward_hook(lambda *_: passes.append(1))
    results = edited(saving, steps=STEPS)
    batches = 2 if cache == "first-block" else 1
    clean, steps = 1 + batches, STEPS * (1 + text) * batches
    assert clean < len(passes) < clean + steps and apart(results, expected) > 0
    assert same(edited(saving, steps=STEPS), results)  # nothing is left of the one before
    assert same(edited(saving, count=1, steps=STEPS), results[:1])
    assert not saving.family.transformer.is_cache_enabled


def test_a_step_cache_is_closer_to_all_steps_than_as_many_steps_as_it_runs():
    """On what the base was trained for, where a prediction from step to step can be right: scenes of its own size."""
    plain, saving = Editor.load(), Editor.load(tuned=Tuning(step_cache="taylorseer"))
    side = isqrt(plain.max_area)
    seeded = torch.Generator().manual_seed(0)
    drawn = scenes.draw_tuples(scenes.FAMILIES["background"], 1, 3, (side, side), seeded)
    pair = to_image(drawn.before[0, 0]), to_image(drawn.after[0, 0])
    queries = [to_image(image) for image in drawn.before[0, 1:]]

    def made(editor: Editor, steps: int) -> list[np.ndarray]:
        images = editor.edit(queries, editor.remember([pair]), seeds=range(len(queries)), steps=steps)
        return [np.asarray(image, int) for image in images]

    ran: list[int] = []
    saving.family.transformer.transformer_blocks[0].attn.register_forward_hook(lambda *_: ran.append(1))
    results = made(saving, 28)
    steps = len(ran) - 2  # the pair and the queries have passes of their own
    wanted, few = made(plain, 28), made(plain, steps)
    assert steps == 8 and apart(results, wanted) < apart(few, wanted)


def _prompt(seed: int) -> Prompt:
    draw = torch.Generator().manual_seed(seed)
    return Prompt(torch.randn(1, 5, CONTEXT, generator=draw), torch.randn(1, POOLED, generator=draw))


def test_offloaded_blocks_compute_the_same(folder, lora):
    plain, offloaded = (Editor.load(folder, tuned=Tuning(offload=offload)) for offload in (False, True))
    assert same(edited(plain), edited(offloaded))
    for editor in (plain, offloaded):
        editor.wear([Lora(lora)])
    assert same(edited(plain), edited(offloaded))


class NoStream:
    """What a stream of a GPU does to whoever waits for it, where there is none."""

    def synchronize(self) -> None: ...

    def stream(self, _: object) -> nullcontext[None]:
        return nullcontext()

    def current_stream(self) -> "NoStream":
        return self


def test_adapters_come_and_go_where_blocks_are_offloaded_ahead_of_use(folder, lora, monkeypatch):
    """As on a GPU, where each group of layers has its parameters in pinned memory of the host."""
    config = partial(
        group_offloading.GroupOffloadingConfig,
        offload_device=torch.device("cpu"), offload_type=group_offloading.GroupOffloadingType.BLOCK_LEVEL,
        non_blocking=False, record_stream=False, low_cpu_mem_usage=False, num_blocks_per_group=1, stream=NoStream(),
    )  # fmt: skip
    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", lambda *_: NoStream())
    monkeypatch.setattr(group_offloading.ModuleGroup, "_to_cpu", staticmethod(lambda tensor, _: tensor.data.clone()))
    monkeypatch.setattr(
        group_offloading.ModuleGroup, "_pinned_memory_tensors", lambda group: nullcontext(dict(group.cpu_param_dict))
    )
    monkeypatch.setattr(
        diffusers.ModelMixin,
        "enable_group_offload",
        lambda model, onload_device, **_: group_offloading._apply_group_offloading(
            model, config(onload_device=onload_device)
        ),
    )
    plain, offloaded = (Editor.load(folder, tuned=Tuning(offload=offload)) for offload in (False, True))
    for worn in ([Lora(lora)], [Lora(lora, 0.5)], [], [Lora(lora)]):
        for editor in (plain, offloaded):
            editor.wear(worn)
        assert same(edited(plain), edited(offloaded))


def test_tiles_of_large_images_only(folder):
    plain, tiled = (
        Editor.load(folder, max_area=96 * 96),
        Editor.load(folder, max_area=96 * 96, tuned=Tuning(tiling=True)),
    )
    for editor in (plain, tiled):
        editor.family.vae.tile_latent_min_size, editor.family.vae.tile_sample_min_size = 8, 64
    assert same(edited(plain), edited(tiled))
    large = edited(tiled, size=(96, 96))
    assert large[0].shape == (96, 96, 3) and not same(edited(plain, size=(96, 96)), large)


def test_the_attention_backend_of_one_editor_is_no_others(folder):
    usual = _AttentionBackendRegistry.get_active_backend()[0]
    other = Editor.load(folder, tuned=Tuning(attention_backend="_native_math"))
    assert {block.attn.processor._attention_backend for block in blocks_of(other.family.transformer)} == {
        "_native_math"
    }
    assert _AttentionBackendRegistry.get_active_backend()[0] == usual != "_native_math"


def test_attention_backends_are_those_of_diffusers(folder):
    assert same(edited(Editor.load(folder)), edited(Editor.load(folder, tuned=Tuning(attention_backend="native"))))
    with pytest.raises(UsageError, match=r"--attention-backend nonsense cannot be used here: .*native"):
        Editor.load(folder, tuned=Tuning(attention_backend="nonsense"))


def test_what_cannot_be_had_is_told(tiny_base, monkeypatch):
    with pytest.raises(UsageError, match="--weights can be full, float8, int8, int4, not int3"):
        Tuning(weights="int3")
    with pytest.raises(BaseNotFound, match=r"magcache needs to know base .*`residuals`"):
        Editor.load(tiny_base, tuned=Tuning(step_cache="magcache"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="int4 needs a CUDA GPU"):
            Editor.load(tiny_base, tuned=Tuning(weights="int4"))
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UsageError, match=r"needs torchao. Install it with `pip install 'edit-transfer\[light\]'`"):
        Editor.load(tiny_base, tuned=Tuning(weights="int8"))


@pytest.mark.parametrize("make", [tiny_transformer, tiny_transformer1])
def test_blocks_are_named_in_the_order_in_which_they_run(make):
    transformer = make()
    blocks, ran = blocks_of(transformer), []
    for index, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    ids = torch.zeros(3, 4 if make is tiny_transformer else 3)
    more = {} if make is tiny_transformer else {"pooled_projections": torch.zeros(1, POOLED), "guidance": torch.ones(1)}
    transformer(torch.zeros(1, 3, transformer.config.in_channels), torch.zeros(1, 3, CONTEXT), timestep=torch.ones(1),
                img_ids=ids, txt_ids=ids, **more)  # fmt: skip
    assert ran == list(range(4))
