"""LoKr and LoHa become LoRAs that do the same, or nearly, as PEFT and diffusers see it; other kinds are named."""

import math
import re

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from infra.errors import AdapterNotFound
from pipelines.transfer import Lora, conversion, factors, names, rewriting
from pipelines.transfer import adapters as lora_adapters
from tests.fullsize import TRANSFORMERS
from tests.loras import linears, pairs_of, random_lora
from tests.pipelines.transfer.test_other_tools import output
from tests.tiny import tiny_transformer, tiny_transformer1

TINY = {"flux1": tiny_transformer1, "flux2": tiny_transformer}
TARGETS = ["to_q", "to_add_out", "proj_out", "to_qkv_mlp_proj", "norm_out.linear"]
KINDS = {  # of PEFT: with a second factor that is whole, a product, and with both products; and LoHa
    "whole": LoKrConfig(r=64, alpha=64, target_modules=TARGETS, init_weights=False),
    "second": LoKrConfig(r=2, alpha=3, target_modules=TARGETS, init_weights=False),
    "both": LoKrConfig(r=2, alpha=5, target_modules=TARGETS, init_weights=False, decompose_both=True),
    "LoHa": LoHaConfig(r=3, alpha=2, target_modules=TARGETS, init_weights=False),
    "wide LoHa": LoHaConfig(r=12, alpha=12, target_modules=TARGETS, init_weights=False),
}
PREFIXES = ("lycoris_", "lora_unet_", "lora_transformer_", "transformer.", "diffusion_model.", "")


def random_like(shape, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def of_peft(model, config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What LyCORIS would have written, alpha included, and what each layer's weight gains by PEFT's own computation."""
    injected = inject_adapter_in_model(config, model)
    entries, gains = {}, {}
    for name, module in injected.named_modules():
        if not hasattr(module, "get_delta_weight"):
            continue
        for part in module.adapter_layer_names:
            if "default" in (held := getattr(module, part)):
                held["default"].data = random_like(held["default"].shape, len(entries))
                entries[f"{name}.{part}"] = held["default"].detach()
        entries[f"{name}.alpha"] = torch.tensor(float(config.alpha))
        gains[name] = module.get_delta_weight("default").detach()
    return entries, gains


def spelled(entries, prefix: str):
    """The same under other names."""
    for key, value in entries.items():
        layer, _, part = key.rpartition(".")
        name = layer.replace(".", "_") if prefix.endswith("_") else layer
        yield f"{prefix}{name}.{part}", value


def rewritten(model, weights, folder, rank=None):
    path = folder / "theirs.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return rewriting.rewritten(model, path, folder / "out", rank)


def gains_of(path) -> dict[str, torch.Tensor]:
    weights = {key.removeprefix("transformer."): weight.float() for key, weight in load_file(path).items()}
    return {layer: up @ down for layer, (down, up) in pairs_of(weights).items()}


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.keys() == expected.keys()
    for layer, gain in expected.items():
        assert (actual[layer] - gain).norm() <= tolerance * gain.norm(), layer


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_computes_is_imported(tmp_path, family, kind):
    entries, gains = of_peft(TINY[family](), KINDS[kind])
    assert len(gains) > 4
    made = rewritten(TINY[family](), entries, tmp_path)
    assert_close(gains_of(made.path), gains)
    assert made.rank == max(len(weight) for key, weight in load_file(made.path).items() if "lora_A" in key)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["second", "LoHa"])
def test_it_is_the_same_under_any_names(tmp_path, prefix, kind):
    entries, gains = of_peft(tiny_transformer(), KINDS[kind])
    assert_close(gains_of(rewritten(tiny_transformer(), dict(spelled(entries, prefix)), tmp_path).path), gains)


def fused(kind: str, name: str, output: int, width: int) -> dict[str, torch.Tensor]:
    """A LoKr or LoHa of one official layer."""
    if kind == "LoKr":
        parts = {"lokr_w1": (4, 4), "lokr_w2_a": (output // 4, 3), "lokr_w2_b": (3, width // 4)}
    else:
        parts = {f"hada_w{number}{side}" for number in (1, 2) for side in ("_a", "_b")}
        parts = {part: (output, 3) if part.endswith("_a") else (3, width) for part in sorted(parts)}
    entries = {f"{name}.{part}": random_like(shape, seed) for seed, (part, shape) in enumerate(parts.items())}
    return entries | {f"{name}.alpha": torch.tensor(1.5)}


def gain_of_fused(entries, name: str) -> torch.Tensor:
    parts = {key.removeprefix(f"{name}."): value for key, value in entries.items()}
    if "lokr_w1" in parts:
        return torch.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"]) / 2
    return (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"]) / 2


@pytest.mark.parametrize("kind", ["LoKr", "LoHa"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("flux1", "double_blocks.1.txt_attn.qkv"),
        ("flux1", "single_blocks.0.linear1"),
        ("flux2", "double_blocks.0.img_attn.qkv"),
        ("flux2", "final_layer.adaLN_modulation.1"),
    ],
)
@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
def test_what_official_names_stack_is_cut(tmp_path, kind, family, name, prefix):
    model = TINY[family]()
    homes = names.spelled(type(model).__name__, name)
    widths = [linears(model)[home][0] for home in homes]
    entries = fused(kind, name, sum(widths), linears(model)[homes[0]][1])
    whole = gain_of_fused(entries, name)
    whole = torch.cat(whole.chunk(2)[::-1]) if name == names.MODULATION else whole
    made = rewritten(model, dict(spelled(entries, prefix)), tmp_path)
    assert_close(gains_of(made.path), dict(zip(homes, whole.split(widths), strict=True)))


def test_stock_diffusers_does_the_same_with_a_lokr_of_ai_toolkit(tmp_path):
    """It melts the projections together, where a LoKr of `qkv` fits as it is."""
    stock, model = tiny_transformer(), tiny_transformer()
    shapes = {"double_blocks.0.img_attn.qkv": (192, 64), "single_blocks.1.linear2": (64, 256)}
    entries = {
        f"diffusion_model.{key}": value * 3
        for name, shape in (shapes | {"final_layer.linear": (128, 64)}).items()
        for key, value in fused("LoKr", name, *shape).items()
    }
    plain = output(model)
    stock.load_lora_adapter(Flux2LoraLoaderMixin.lora_state_dict(dict(entries)), prefix="transformer")
    lora_adapters.wear(model, [Lora(rewritten(tiny_transformer(), entries, tmp_path).path)])
    assert (output(model) - plain).abs().max() > 0.1
    torch.testing.assert_close(output(model), output(stock), atol=1e-4, rtol=1e-4)


def test_alpha_counts_only_where_a_factor_is_a_product(tmp_path):
    """ai-toolkit writes 9999999999 for a whole one, which is infinite in float16."""
    name = "transformer_blocks.0.attn.to_q"
    entries = {f"{name}.lokr_w1": random_like((4, 4), 1).half(), f"{name}.lokr_w2": random_like((16, 16), 2).half()}
    made = rewritten(tiny_transformer(), entries | {f"{name}.alpha": torch.tensor(9999999999.0).half()}, tmp_path)
    expected = torch.kron(entries[f"{name}.lokr_w1"].float(), entries[f"{name}.lokr_w2"].float())
    assert_close(gains_of(made.path), {name: expected}, 1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_stays_near(tmp_path, dtype):
    entries, _ = of_peft(tiny_transformer(), KINDS["second"])
    narrow = {key: value.to(dtype) for key, value in entries.items()}
    exact = conversion.to_ours(tiny_transformer(), {key: value.float() for key, value in narrow.items()})
    made = rewritten(tiny_transformer(), narrow, tmp_path)
    expected = {layer: up @ down for layer, (down, up) in pairs_of(exact).items()}
    assert_close(gains_of(made.path), expected, 1e-3 if dtype == torch.float16 else 6e-3)
    assert {value.itemsize for value in load_file(made.path).values()} == {2}


def test_a_whole_factor_of_few_ranks_makes_a_lora_of_few_ranks(tmp_path):
    name = "transformer_blocks.0.attn.to_q"
    second = random_like((16, 2), 1) @ random_like((2, 16), 2)
    entries = {f"{name}.lokr_w1": random_like((4, 4), 3), f"{name}.lokr_w2": second}
    made = rewritten(tiny_transformer(), entries, tmp_path)
    assert made.rank == 4 * 2
    assert_close(gains_of(made.path), {name: torch.kron(entries[f"{name}.lokr_w1"], second)})


def test_a_layer_that_was_not_trained_gains_nothing(tmp_path):
    name = "transformer_blocks.0.attn.to_q"
    entries = {f"{name}.lokr_w1": random_like((4, 4), 3), f"{name}.lokr_w2": torch.zeros(16, 16)}
    assert not gains_of(rewritten(tiny_transformer(), entries, tmp_path).path)[name].any()


# --------------------------------------------------------------------------------------------- a rank that is asked for


@pytest.mark.parametrize("kind", ["whole", "wide LoHa"])
def test_a_rank_gives_the_best_lora_of_it_and_tells_how_far_off(tmp_path, kind):
    entries, gains = of_peft(tiny_transformer(), KINDS[kind])
    made = rewritten(tiny_transformer(), entries, tmp_path, rank=5)
    actual = gains_of(made.path)
    off = {layer: float((actual[layer] - gain).norm() / gain.norm()) for layer, gain in gains.items()}
    for loss in made.losses:
        sizes = torch.linalg.svdvals(gains[loss.layer])
        assert loss.error == pytest.approx(off[loss.layer], abs=1e-4)
        assert loss.error == pytest.approx(float(sizes[5:].norm() / sizes.norm()), abs=1e-4), loss.layer
    whole = math.hypot(*(float(gain.norm()) for gain in gains.values()))
    rest = math.hypot(*(float((actual[layer] - gain).norm()) for layer, gain in gains.items()))
    assert made.rank == 5 and made.error == pytest.approx(rest / whole, abs=1e-4)
    assert 0.1 < made.error < max(loss.error for loss in made.losses) < 1


def test_each_of_the_stacked_layers_gets_the_rank_and_the_same_file_the_same_lora(tmp_path):
    entries = fused("LoHa", "double_blocks.0.img_attn.qkv", 192, 64)
    contents = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        torch.manual_seed(len(contents))
        made = rewritten(tiny_transformer(), entries, tmp_path / run, rank=2)
        contents.append(made.path.read_bytes())
    assert contents[0] == contents[1]
    gain = gain_of_fused(entries, "double_blocks.0.img_attn.qkv")
    for loss, rows in zip(made.losses, gain.split(64), strict=True):
        sizes = torch.linalg.svdvals(rows)
        assert loss.error == pytest.approx(float(sizes[2:].norm() / sizes.norm()), abs=1e-4)


def test_the_best_lora_is_found_where_only_some_directions_are_looked_at():
    """A spectrum that falls slowly, and many more ranks than the decomposition looks at."""
    sizes = torch.arange(1, 301).float() ** -0.5
    left, right = (torch.linalg.qr(random_like((300, 300), seed))[0] for seed in (1, 2))
    change = left @ torch.diag(sizes) @ right
    loss = factors.loss_of("", factors.truncated(change, 16, torch.float32), change)
    best = float(sizes[16:].norm() / sizes.norm())
    assert best <= loss.error + 1e-6 and loss.error <= best * 1.005


def test_a_rank_that_suffices_changes_nothing(tmp_path):
    entries, gains = of_peft(tiny_transformer(), KINDS["second"])
    made = rewritten(tiny_transformer(), entries, tmp_path, rank=200)
    assert_close(gains_of(made.path), gains)
    assert made.error == 0 and len(made.losses) == len(gains)


def test_a_product_of_too_many_ranks_asks_for_a_rank():
    with torch.device("meta"):
        model = Flux2Transformer2DModel(**TRANSFORMERS["FLUX.2-klein-4B"])
    name = "diffusion_model.single_blocks.0.linear2"
    entries = {f"{name}.lokr_w1": random_like((16, 16), 1), f"{name}.lokr_w2": random_like((192, 768), 2)}
    with pytest.raises(ValueError, match=r"rank 3072 \(single_blocks\.0\.linear2\), and only up to 256 .* --rank 64"):
        conversion.to_ours(model, entries)


def test_a_lora_keeps_its_rank(tmp_path):
    with pytest.raises(AdapterNotFound, match="is a LoRA already"):
        rewritten(tiny_transformer(), random_lora(tiny_transformer()), tmp_path, rank=2)


def test_loras_and_products_may_be_in_one_file(tmp_path):
    """LyCORIS lets each kind of layer have its own; LoRAs among them keep their ranks."""
    lora = {key: value for key, value in random_lora(tiny_transformer(), rank=6).items() if "attn.to_k" in key}
    entries, gains = of_peft(tiny_transformer(), KINDS["whole"])
    made = rewritten(tiny_transformer(), lora | entries, tmp_path, rank=3)
    actual = gains_of(made.path)
    for layer, (down, up) in pairs_of(lora).items():
        torch.testing.assert_close(actual[layer], up @ down)
    assert actual.keys() > gains.keys() and made.rank == 6


# ------------------------------------------------------------------------------------------------ what is not taken in

Q = "lycoris_transformer_blocks_0_attn_to_q"
OTHERS = {
    "LoCon with Tucker": f"{Q}.lora_mid.weight",
    "LoKr with Tucker": f"{Q}.lokr_t2",
    "LoHa with Tucker": f"{Q}.hada_t1",
    "IA3": f"{Q}.on_input",
    "OFT or BOFT": f"{Q}.oft_blocks",
    "BOFT": "base_model.model.transformer_blocks.0.attn.to_q.boft_R",
    "GLoRA": f"{Q}.a1.weight",
    "full": f"{Q}.diff",
    "norm": f"{Q}.w_norm",
    "VeRA": "base_model.model.transformer_blocks.0.attn.to_q.vera_lambda_b",
    "DoRA": f"{Q}.dora_scale",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("beside", [False, True])
def test_other_kinds_are_named_for_what_they_are(tmp_path, kind, beside):
    """Alone in a file, and beside a LoKr that could be taken."""
    entries = fused("LoKr", Q, 64, 64) if beside else {}
    with pytest.raises(AdapterNotFound, match=kind):
        rewritten(tiny_transformer(), entries | {OTHERS[kind]: torch.ones(2, 2)}, tmp_path)


def lacking(*parts: str):
    return {key: value for key, value in fused("LoKr", Q, 64, 64).items() if not key.endswith(parts)}


W2 = random_like((16, 16), 0)
BROKEN = {
    "needs lokr_w2_a and lokr_w2_b, or lokr_w2 alone": lacking("lokr_w2_b"),
    "needs lokr_w1_a and lokr_w1_b": lacking("lokr_w1"),
    "lokr_w2 alone": lacking() | {f"{Q}.lokr_w2": W2},
    "needs hada_w2_a and hada_w2_b$": {
        key: value for key, value in fused("LoHa", Q, 64, 64).items() if "hada_w2_a" not in key
    },
    "lokr_w2_a and lokr_w2_b are of different ranks": lacking() | {f"{Q}.lokr_w2_b": torch.ones(2, 16)},
    "lokr_w1 is no matrix, but of shape": lacking() | {f"{Q}.lokr_w1": torch.ones(2, 2, 1)},
    r"lokr_w2_a is no matrix|lokr_w2 is no matrix": lacking() | {f"{Q}.lokr_w2_a": torch.ones(16, 0)},
    "two halves are of different widths": fused("LoHa", Q, 64, 64) | {f"{Q}.hada_w2_a": torch.ones(32, 3)},
    "LoHa and LoKr for one layer": fused("LoHa", Q, 64, 64) | lacking(),
    "LoKr and LoRA for one layer": lacking() | {f"{Q}.lora_up.weight": W2, f"{Q}.lora_down.weight": W2.T},
    "makes no sense": lacking() | {f"{Q}.alpha": torch.tensor(0.0)},
    "nan times as strong": lacking() | {f"{Q}.alpha": torch.tensor(math.nan)},
    "its alpha is no number": {
        f"{Q}.lokr_w1": torch.ones(4, 4),
        f"{Q}.lokr_w2": torch.ones(16, 16),
        f"{Q}.alpha": torch.tensor(math.nan),
    },
    "alpha is no single number": lacking() | {f"{Q}.alpha": torch.ones(2)},
    "is 64 wide in this base, and 128 in the adapter": fused("LoKr", Q, 128, 64),
    "is 64 wide here, and 128 in the adapter": fused("LoKr", Q, 64, 128),
    "made for another base": fused("LoKr", "lycoris_transformer_blocks_9_attn_to_q", 64, 64),
    "to_k has no matrix A": lacking() | {"transformer_blocks.0.attn.to_k.alpha": torch.tensor(1.0)},
    r"attn_to_q has weights that are no numbers": lacking() | {f"{Q}.lokr_w1": torch.full((4, 4), math.inf)},
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_does_not_multiply_is_told(tmp_path, said):
    with pytest.raises(AdapterNotFound) as refused:
        rewritten(tiny_transformer(), BROKEN[said], tmp_path)
    assert re.search(said, str(refused.value).rstrip("."))


def test_an_editor_sends_a_lokr_to_the_import(tmp_path):
    path = tmp_path / "lokr.safetensors"
    save_file(lacking(), path)
    with pytest.raises(AdapterNotFound, match=r"written as a LoKr.*edit-transfer adapters import"):
        lora_adapters.wear(tiny_transformer(), [Lora(path)])
