"""FLUX-class bases on a GPU: the paper's way against ours, at true size with random weights.

    python tests/benchmarks/gpu.py --minutes 9                 on a GPU; run it again until nothing is left
    python tests/benchmarks/gpu.py --size tiny --device cpu    proves it in a minute, says nothing about speed
    python tests/benchmarks/gpu.py --device meta               only counts the FLOPs, on any machine

Needs a checkout, torch, diffusers, transformers and peft (torchao for FP8), and no network. Every row is written to the
JSON file as soon as it is measured, and the table beside it; rows that are in the file are not measured
again. A LoRA of rank 16 is worn in every row.

Letters: B images, S tokens, C channels.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import gc
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":  # as a script: the checkout's packages, not this folder's modules
    sys.path[0] = str(ROOT)
    os.environ.setdefault(
        "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"
    )  # rows differ much in what they allocate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipelines.transfer.layout import Grid, layout
from pipelines.transfer.passes import remember, velocity_field
from pipelines.transfer.sampler import Velocity, denoise, euler_move, euler_step
from pipelines.transfer.tuning import compile_blocks, lighten
from tests.fullsize import FLUX1_VAE, FLUX2_VAE, TRANSFORMERS
from training.fit.draw import Group
from training.fit.lora import LoraWeights
from training.fit.loss import group_loss
from training.fit.views import View
from training.loss import importance

PLAIN, COMPILED, FP8 = "plain", "compile", "compile+fp8"
RANK, QUERIES = 16, 4  # of the LoRA; of a training step, the paper's batch
PART_SECONDS, WHOLE_SECONDS = 2.5, 12.0  # to spend on the repeats of one part; above, a whole image is not run as well
GIB = 2**30


# ---------------------------------------------------------------------------------------------- bases and cases


@dataclass(frozen=True)
class Base:
    """A base as its configurations describe it; `text` tokens are what its stock pipeline pads every prompt to."""

    kind: str  # flux1 or flux2
    transformer: dict[str, Any]
    vae: dict[str, Any]
    steps: int
    text: int

    @property
    def multiple(self) -> int:
        """Pixels per token side."""
        return 2 ** len(self.vae["block_out_channels"])


@dataclass(frozen=True)
class Case:
    """One row: a way of editing (or of training) one batch at one size of the image, `side` pixels square."""

    letter: str
    base: str
    way: str
    side: int
    batch: int = 1
    text: bool = True
    options: str = PLAIN

    @property
    def name(self) -> str:
        text = "" if self.text else " no-text"
        return f"{self.side} {self.letter} {self.base} {self.way} b{self.batch}{text} {self.options}"

    @property
    def models(self) -> tuple[str, str, str]:
        """Cases that are the same here share their models."""
        kind = self.way if self.way in ("paper", "stock", "kv") else "train" if self.trains else "ours"
        return self.base, kind, self.options

    @property
    def trains(self) -> bool:
        return self.letter == "t"


TINY_VAE = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
FLUX1 = Base("flux1", TRANSFORMERS["FLUX.1-dev"], FLUX1_VAE, 35, 512)
KLEIN = Base("flux2", TRANSFORMERS["FLUX.2-klein-4B"], FLUX2_VAE, 4, 512)
SMALL = {"num_layers": 1, "num_single_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2}
TINY_FLUX1 = {"axes_dims_rope": (8, 12, 12), "joint_attention_dim": 16, "pooled_projection_dim": 16}
TINY_KLEIN = {"axes_dims_rope": (8, 8, 8, 8), "joint_attention_dim": 16, "guidance_embeds": False}


@dataclass(frozen=True)
class Size:
    """The bases, the sides of an image, and the batches that are measured. For a `proof` options only have to be seen
    to run, so that most rows go without them."""

    bases: dict[str, Base]
    sides: tuple[int, ...]
    batches: tuple[int, ...]
    proof: bool = False

    def shows(self, case: Case) -> bool:
        plain, first = case.options == PLAIN, case.batch == 1 and case.text
        return not self.proof or plain or (first and (case.options == FP8 or case.letter == "d"))


SIZES = {
    "full": Size({"flux1": FLUX1, "klein": KLEIN}, (512, 1024), (1, 4, 16)),
    "tiny": Size(
        {
            "flux1": Base("flux1", SMALL | TINY_FLUX1 | FLUX1.transformer, FLUX1_VAE | TINY_VAE, 3, 8),
            "klein": Base("flux2", SMALL | TINY_KLEIN, TINY_VAE, 2, 8),
        },
        (64,),
        (1, 4),
        proof=True,
    ),
}


def cases(size: Size) -> list[Case]:
    """All rows: those that share models one after the other, the most telling first."""
    rows: list[Case] = []
    for options in (PLAIN, FP8, COMPILED):
        for letter, base, way in (("a", "flux1", "paper"), ("b", "flux1", "full"), ("c", "flux1", "prefix"),
                                  ("d", "klein", "prefix"), ("e", "klein", "stock"), ("f", "klein", "kv")):  # fmt: skip
            batches = size.batches if way == "prefix" else (1,)
            texts = [(batch, True) for batch in batches] + [
                (batch, False) for batch in batches[::2] * (way == "prefix")
            ]
            rows += [Case(letter, base, way, side, *told, options) for side in size.sides for told in texts]
        if options == PLAIN:
            rows += [Case("t", base, way, side, QUERIES) for base in ("klein", "flux1") for side in size.sides
                     for way in ("train-naive", "train-ours")]  # fmt: skip
    return [row for row in rows if size.shows(row)]


# ---------------------------------------------------------------------------------------------- models


@dataclass
class Models:
    """Models of one base on a device, in bfloat16, the transformer wearing a LoRA."""

    base: Base
    transformer: Any
    vae: Any
    scheduler: Any
    lora: LoraWeights
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    def prompt(self, text: bool) -> Tensor:
        """Made-up prompt embeddings (1, T, E)."""
        width = self.base.transformer.get("joint_attention_dim", 4096)
        return torch.randn(1, self.base.text * text, width, device=self.device, dtype=self.dtype)

    def pooled(self) -> Tensor:
        """FLUX.1's second, pooled prompt embedding (1, P)."""
        width = self.base.transformer.get("pooled_projection_dim", 768)
        return torch.randn(1, width, device=self.device, dtype=self.dtype)

    def image(self, side: int, count: int = 1) -> Tensor:
        return torch.rand(count, 3, side, side, device=self.device, dtype=self.dtype) * 2 - 1


def build(base: Base, kind: str, options: str, device: torch.device) -> Models:
    """Draw the weights where and as they are used: twelve billion of them never exist in float32 or on the CPU."""
    import diffusers

    names = ("FluxTransformer2DModel", "AutoencoderKL")
    names = names if base.kind == "flux1" else ("Flux2Transformer2DModel", "AutoencoderKLFlux2")
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            transformer = getattr(diffusers, names[0])(**base.transformer).eval()
            vae = getattr(diffusers, names[1])(**base.vae).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(kept)
    vae.enable_slicing()  # as bases are loaded
    if options == FP8:
        lighten(transformer, "float8", device)
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "max_image_seq_len": 4096} if base.kind == "flux1" else {}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, **shifts)
    lora = LoraWeights(transformer, RANK, 0)
    for weight in lora.weights:
        nn.init.normal_(weight.data, std=0.02)
        if kind != "train":
            weight.data = weight.data.to(torch.bfloat16)
    if kind == "train":
        transformer.train().enable_gradient_checkpointing()  # both ways, as `--checkpointing` trains
    else:
        transformer.requires_grad_(False)
        if options in (COMPILED, FP8) and device.type != "meta":
            compiled(transformer, device)
    return Models(base, transformer, vae, scheduler, lora, device)


def compiled(transformer: Any, device: torch.device) -> None:
    """Compile the blocks for the sizes of a row; on a CPU they are only traced, which proves the path."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # silently eager blocks would pass for compiled ones
    compile_blocks(transformer, "inductor" if device.type == "cuda" else "eager", dynamic=False)


def family_of(models: Models, text: bool) -> Any:
    """Our own code for a base."""
    parts, prompt = (models.transformer, models.vae, models.scheduler), models.prompt(text)
    if models.base.kind == "flux2":
        from pipelines.transfer.flux2 import Flux2

        return Flux2(*parts, prompt)
    from pipelines.transfer.family import Prompt
    from pipelines.transfer.flux1 import Flux1

    return Flux1(*parts, Prompt(prompt, models.pooled()))


# ---------------------------------------------------------------------------------------------- ways


Parts = dict[str, tuple[Callable[[], object], int]]


@dataclass
class Work:
    """What there is to time for one batch: `parts` (a call, and how often a batch makes it), `once` for a whole
    catalog, and `whole`, everything of one batch in order."""

    parts: Parts
    once: dict[str, Callable[[], object]] = field(default_factory=dict)
    whole: Callable[[], object] | None = None


def paper(models: Models, case: Case) -> Work:
    """Edit Transfer's sampling with diffusers' own transformer and attention: one 2x2 canvas, all tokens at the
    current t, clean ones put back after every step, every panel encoded and decoded."""
    base, vae = models.base, models.vae
    rows = case.side // base.multiple
    prompt, pooled, image = models.prompt(case.text), models.pooled(), models.image(case.side)
    spots = torch.cartesian_prod(torch.zeros(1), torch.arange(2.0 * rows), torch.arange(2.0 * rows)).to(models.device)
    noised = ((spots[:, 1] >= rows) & (spots[:, 2] >= rows))[None, :, None]
    text_ids, guidance = torch.zeros(base.text, 3, device=models.device), torch.ones(1, device=models.device)
    sigmas = torch.linspace(1, 0, base.steps + 1).tolist()

    def encode() -> Tensor:
        latents = (vae.encode(image).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
        return F.pixel_unshuffle(latents, 2)

    def canvas(panels: Sequence[Tensor]) -> Tensor:
        """Four panels (1, C, H, W) as tokens (1, S, C)."""
        halves = [torch.cat(list(half), 3) for half in (panels[:2], panels[2:])]
        return torch.cat(halves, 2).flatten(2).transpose(1, 2)

    def decode(panel: Tensor) -> Tensor:
        latents = F.pixel_shuffle(panel, 2) / vae.config.scaling_factor + vae.config.shift_factor
        return vae.decode(latents).sample

    def step(x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
        velocity = models.transformer(
            hidden_states=x.to(models.dtype),
            encoder_hidden_states=prompt,
            pooled_projections=pooled,
            timestep=torch.full((1,), now, device=x.device),
            guidance=guidance,
            img_ids=spots,
            txt_ids=text_ids,
            return_dict=False,
        )[0]
        return torch.where(noised, euler_move(x, velocity, now, then), clean)

    panel = encode()
    noise = torch.randn_like(panel)
    clean = canvas([panel, panel, panel, noise]).float()

    def whole() -> Tensor:
        panels = [encode() for _ in range(3)]
        given = canvas([*panels, noise]).float()
        x = given
        for now, then in pairwise(sigmas):
            x = step(x, given, now, then)
        grid = x.to(models.dtype).transpose(1, 2).unflatten(2, (2 * rows, 2 * rows))
        quarters = [quarter for half in grid.split(rows, 2) for quarter in half.split(rows, 3)]
        return torch.cat([decode(quarter.contiguous()) for quarter in quarters])

    parts: Parts = {
        "encode": (encode, 3),
        "step": (lambda: step(clean, clean, 0.5, 0.4), base.steps),
        "decode": (lambda: decode(panel), 4),
    }
    return Work(parts, whole=whole)


def ours(models: Models, case: Case) -> Work:
    """What the Editor does: the pair remembered once, `prefix` or `full` attention."""
    family, steps = family_of(models, case.text), models.base.steps
    attention: Any = case.way
    grid: Grid = family.grid(case.side, case.side)
    grids = [(grid, grid)]
    plan, images = layout(grids, grid, attention), models.image(case.side, case.batch)
    shown = models.image(case.side)

    def keep() -> Any:  # once for a catalog, so it is not worth compiling its shapes
        with torch.compiler.set_stance("force_eager"):
            return _kept()

    def _kept() -> Any:
        return remember(family, [(family.encode(shown), family.encode(shown))], grids, attention)

    def prefill() -> None:
        read.clear()  # a batch's keys and values are the largest thing after the weights
        read.append(velocity_field(family, query, prefix, plan))

    read: list[Velocity] = []
    prefix, query = keep(), family.encode(images)
    noise = torch.randn(query.shape, device=query.device)
    sigmas = family.sigmas(steps, query.shape[1])

    def whole() -> Tensor:
        read.clear()
        velocity = velocity_field(family, family.encode(images), prefix, plan)
        return family.decode(denoise(velocity, noise, sigmas), grid)

    parts: Parts = {
        "encode": (lambda: family.encode(images), 1),
        "query": (prefill, 1),
        "step": (lambda: euler_step(read[0], noise, 0.5, 0.4), steps),
        "decode": (lambda: family.decode(noise, grid), 1),
    }
    return Work(parts, {"pair": keep}, whole)


def klein(models: Models, case: Case) -> Work:
    """diffusers' own klein pipelines with three references: `stock` runs them at every step, `kv` at the first one of
    every image. The parts are their calls; the whole is the pipeline itself."""
    from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline
    from PIL import Image

    cached = case.way == "kv"
    transformer, steps, side = models.transformer, models.base.steps, case.side
    kind = Flux2KleinKVPipeline if cached else Flux2KleinPipeline
    pipe = kind(models.scheduler, models.vae, None, None, transformer, is_distilled=True)
    pipe.set_progress_bar_config(disable=True)
    prompt, image = models.prompt(case.text), models.image(side)
    places = {"device": models.device, "dtype": models.dtype, "generator": None}
    x, x_ids = pipe.prepare_latents(1, pipe.transformer.config.in_channels // 4, side, side, latents=None, **places)

    def encode() -> tuple[Tensor, Tensor]:
        return pipe.prepare_image_latents(images=[image] * 3, batch_size=1, **places)

    read: list[Any] = []
    clean, clean_ids = encode()
    given = {
        "timestep": torch.full((1,), 0.5, device=models.device, dtype=models.dtype),
        "guidance": None,
        "encoder_hidden_states": prompt,
        "txt_ids": pipe._prepare_text_ids(prompt).to(models.device),
        "return_dict": False,
    }

    def together(*order: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        tokens, ids = zip(*order, strict=True)
        return {"hidden_states": torch.cat(tokens, 1), "img_ids": torch.cat(ids, 1)}

    def extract() -> None:
        read.clear()
        inputs = together((clean, clean_ids), (x, x_ids))
        read.append(transformer(**inputs, **given, kv_cache_mode="extract", num_ref_tokens=clean.shape[1])[1])

    def step() -> Any:
        if not cached:
            return transformer(**together((x, x_ids), (clean, clean_ids)), **given)
        return transformer(hidden_states=x, img_ids=x_ids, **given, kv_cache=read[0], kv_cache_mode="cached")

    def decode() -> Any:
        rows = side // models.base.multiple
        latents = F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (rows, rows)).contiguous(), 2)
        return models.vae.decode(latents, return_dict=False)

    picture = Image.effect_noise((side, side), 64).convert("RGB")

    def whole() -> Any:
        read.clear()
        pictures = {"image": [picture] * 3, "height": side, "width": side, "output_type": "pt"}
        scale = {} if cached else {"guidance_scale": 1.0}
        return pipe(prompt_embeds=prompt, num_inference_steps=steps, **pictures, **scale)

    parts: Parts = {"encode": (encode, 1)}
    if cached:
        parts["query"] = (extract, 1)
    parts |= {"step": (step, steps - cached), "decode": (decode, 1)}
    return Work(parts, whole=whole)


def training(models: Models, case: Case) -> Work:
    """One optimiser step of a LoRA over a batch of queries, with gradient checkpointing: `train-naive` encodes every
    panel each time and runs the whole canvas for each query; `train-ours` reads latents and shares the pair."""
    family, rank = family_of(models, True), QUERIES
    optimizer = torch.optim.AdamW(models.lora.parameters(), lr=1e-4)
    grid: Grid = family.grid(case.side, case.side)
    image, generator = models.image(case.side, rank), torch.Generator().manual_seed(0)
    with torch.no_grad():
        query, truth = family.encode(image), family.encode(image.flip(-1))
    views = (View(query[0], truth[0], grid),)

    def naive() -> Tensor:
        with torch.no_grad():
            before, after, asked, wanted = (family.encode(image) for _ in range(4))
        plan = layout([(grid, grid)], grid, "full")
        noise, t = torch.randn_like(wanted), torch.rand(rank, device=wanted.device)
        prefix = remember(family, [(before, after)], [(grid, grid)], "full")
        moved = torch.lerp(wanted, noise, t[:, None, None].to(wanted))
        velocity = velocity_field(family, asked, prefix, plan)(moved, t)
        error = (velocity.float() - (noise - wanted)).square().mean(2)
        return (error * importance(asked, wanted)).mean()

    def fitted() -> Tensor:
        group = Group(views, query.float(), truth.float(), grid)
        return group_loss(family, "prefix", models.base.steps, group, generator)

    def step() -> None:
        on = models.device.type != "meta"
        with torch.autocast(models.device.type if on else "cpu", torch.bfloat16, enabled=on):
            loss = naive() if case.way == "train-naive" else fitted()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Work({"step": (step, 1)})


WAYS: dict[str, Callable[[Models, Case], Work]] = {
    "paper": paper,
    "full": ours,
    "prefix": ours,
    "stock": klein,
    "kv": klein,
    "train-naive": training,
    "train-ours": training,
}


# ---------------------------------------------------------------------------------------------- measuring


def clocked(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of some runs, one right after the other as a loop over them would have it."""
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(repeats):
            run()
            marks.append(time.perf_counter())
        return [then - now for now, then in pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize(device)
    return [now.elapsed_time(then) / 1e3 for now, then in pairwise(events)]


def measured(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Median seconds of a call once warm, the spread around it, the runs, and the seconds of the first call, in which
    blocks are compiled."""
    began = time.perf_counter()
    clocked(run, device, 1)
    first = time.perf_counter() - began
    guess = clocked(run, device, 1)[0]
    quick = device.type != "cuda"
    repeats = 3 if quick else max(3, min(20, int(PART_SECONDS / guess)))
    seconds = sorted(clocked(run, device, repeats))
    return {
        "s": statistics.median(seconds),
        "spread": (seconds[-1] - seconds[0]) / statistics.median(seconds),
        "runs": repeats,
        "first_s": first,
    }


def measure(case: Case, models: Models) -> dict[str, Any]:
    """One row, without what is compared with others."""
    device = models.device
    _forget_peak(device)
    grows = torch.enable_grad() if case.trains else torch.no_grad()
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with grows:
        work = WAYS[case.way](models, case)
        parts = {name: measured(run, device) | {"times": times} for name, (run, times) in work.parts.items()}
        batch_s = sum(part["s"] * part["times"] for part in parts.values())
        whole = None
        if work.whole and batch_s < WHOLE_SECONDS:
            whole = statistics.median(clocked(work.whole, device, 1 if batch_s > WHOLE_SECONDS / 4 else 3))
        peak = _peak(device)  # before another pair is remembered beside the first
        once = {name: measured(run, device) for name, run in work.once.items()}
    return {
        "parts": parts,
        "once": once,
        "image_s": batch_s / case.batch,
        "whole_s": whole and whole / case.batch,
        "peak_gib": peak,
        "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
    }


def count(case: Case, models: Models) -> dict[str, float]:
    """FLOPs of each part and of an `image`, by models on the meta device; a multiplication with its addition is two."""
    with torch.enable_grad() if case.trains else torch.no_grad():
        parts = WAYS[case.way](models, case).parts
        flops = {name: _flops(run) for name, (run, _) in parts.items()}
    return flops | {"image": sum(flops[name] * times for name, (_, times) in parts.items()) / case.batch}


def _flops(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peaks(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large product in bfloat16, and in FP8 where it runs."""
    n = 8192 if device.type == "cuda" else 256
    x, y = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    found = {"bfloat16": 2 * n**3 / measured(lambda: x @ y, device)["s"]}
    if device.type == "cuda":
        with suppress(RuntimeError), torch.no_grad():
            one, x8, y8 = torch.ones((), device=device), x.to(torch.float8_e4m3fn), y.to(torch.float8_e4m3fn).t()
            product = partial(torch._scaled_mm, x8, y8, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
            found["float8"] = 2 * n**3 / measured(product, device)["s"]
    return found


def _forget_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    """GiB: the most that tensors took in this row on a GPU; on a CPU the process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# ---------------------------------------------------------------------------------------------- a run and its file


class Results:
    """What is measured so far: a JSON file, and the table beside it, both written anew after every row."""

    def __init__(self, path: Path, size: str) -> None:
        self.size = SIZES[size]
        fresh: dict[str, Any] = {"size": size, "machine": None, "peaks": {}, "flops": {}, "rows": {}}
        self.path = path
        self.told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else fresh
        if self.told["size"] != size:
            raise SystemExit(f"{path} holds results of size {self.told['size']}. Give another file with --out.")

    def on(self, here: dict[str, Any]) -> None:
        """Say on which machine these results are measured; ratios across machines mean nothing."""
        kept = self.told["machine"]
        if kept and any(kept[key] != here[key] for key in ("device", "torch", "diffusers")):
            raise SystemExit(f"{self.path} was measured on {kept}, this is {here}. Give another file with --out.")
        self.told["machine"] = kept or here

    def save(self) -> None:
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps(self.told, indent=1))
        whole.replace(self.path)
        self.path.with_suffix(".md").write_text(markdown(cases(self.size), self.told, self.size.sides))


class Bench:
    """The models that are in memory: of one base and one set of options at a time."""

    def __init__(self, bases: dict[str, Base], device: torch.device) -> None:
        self.bases = bases
        self.device = device
        self._has: tuple[str, str, str] | None = None
        self._models: Models | None = None

    def models(self, case: Case) -> Models:
        if self._has != case.models or self._models is None:
            self._has, self._models = None, None
            torch.compiler.reset()  # it knows the old ones
            _forget_peak(self.device)
            name, kind, options = case.models
            self._models = build(self.bases[name], kind, options, self.device)
            self._has = case.models
        return self._models


def run(cases_: Sequence[Case], results: Results, bench: Bench, asked: argparse.Namespace) -> None:
    """Measure these rows until the time is up."""
    began = time.monotonic()
    for index, case in enumerate(cases_):
        if time.monotonic() - began > asked.minutes * 60:
            print(
                f"{asked.minutes:g} minutes are over, {len(cases_) - index} rows are left: run the same command again"
            )
            return
        row: dict[str, Any] = {"commit": asked.commit, "date": datetime.date.today().isoformat()}
        before = time.monotonic()
        fatal = False
        try:
            row |= measure(case, bench.models(case))
        except Exception as error:  # out of memory, an option that does not work here: the row says so
            row["error"] = f"{type(error).__name__}: {_first_line(error)}"
            fatal = "CUDA error" in row["error"]
        results.told["rows"][case.name] = row
        results.save()
        told = row.get("error") or f"{row['image_s'] * 1e3:.1f} ms/image"
        print(f"{case.name}: {told} ({time.monotonic() - before:.0f} s)", flush=True)
        if fatal:
            raise SystemExit("The GPU's context is broken. Run the same command again for the rows that are left.")


def count_all(cases_: Sequence[Case], results: Results) -> None:
    """FLOPs of all rows that have none yet; options do not change them, and a batch multiplies them."""
    bench = Bench(results.size.bases, torch.device("meta"))
    for one in dict.fromkeys(map(_counted, cases_)):
        if one.name in results.told["flops"]:
            continue
        try:
            results.told["flops"][one.name] = count(one, bench.models(one))
        except Exception as error:
            print(f"{one.name}: its FLOPs could not be counted, {type(error).__name__}: {_first_line(error)}")
    results.save()


def _counted(case: Case) -> Case:
    return replace(case, options=PLAIN, batch=QUERIES if case.trains else 1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:160]


def machine(device: torch.device, commit: str) -> dict[str, Any]:
    """What a number belongs to."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: metadata.version(name) for name in ("diffusers", "peft")},
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def checked_out() -> str:
    """The commit of the checkout, with a + where it has changes; unknown without git."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=ROOT, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


# ---------------------------------------------------------------------------------------------- tables

COLUMNS = (
    "side", "row", "batch", "options", "encode ms", "query ms", "step ms", "decode ms", "s/image", "whole run s/image",
    "x of (a)", "x of (a), same options", "TFLOP/image", "step % of peak", "image % of peak", "pair once ms",
    "peak GiB", "first calls s",
)  # fmt: skip


def derived(case: Case, told: dict[str, Any]) -> dict[str, Any]:
    """The columns of one row, None where there is nothing to say."""
    row = told["rows"][case.name]
    found: dict[str, Any] = dict.fromkeys(COLUMNS)
    found |= {"side": case.side, "row": _label(case), "batch": case.batch, "options": case.options}
    if "error" in row:
        return found | {"error": row["error"]}
    parts = row["parts"]
    found |= {f"{part} ms": parts[part]["s"] * 1e3 for part in ("encode", "query", "step", "decode") if part in parts}
    found |= {
        "s/image": row["image_s"],
        "whole run s/image": row["whole_s"],
        "pair once ms": row["once"]["pair"]["s"] * 1e3 if row["once"] else None,
        "peak GiB": row["peak_gib"],
        "first calls s": sum(part["first_s"] for part in parts.values()),
    }
    if not case.trains:
        found["x of (a)"] = ratio(told, replace(PAPER, side=case.side), case)
        found["x of (a), same options"] = ratio(told, replace(PAPER, side=case.side, options=case.options), case)
    if flops := told["flops"].get(_counted(case).name):
        found["TFLOP/image"] = flops["image"] / 1e12
        peak = told["peaks"]["bfloat16"]
        step = flops["step"] * (1 if case.trains else case.batch)
        found["step % of peak"] = 100 * step / parts["step"]["s"] / peak
        found["image % of peak"] = 100 * flops["image"] / row["image_s"] / peak
    return found


PAPER = Case("a", "flux1", "paper", 0)


def ratio(told: dict[str, Any], slow: Case, fast: Case) -> float | None:
    """How many times cheaper an image is."""
    seconds = [told["rows"].get(case.name, {}).get("image_s") for case in (slow, fast)]
    return seconds[0] / seconds[1] if all(seconds) else None


def targets(told: dict[str, Any], side: int) -> list[str]:
    """The promises of this size, each with what was measured."""
    paper_, flux1, klein_ = (
        replace(PAPER, side=side),
        Case("c", "flux1", "prefix", side),
        Case("d", "klein", "prefix", side),
    )
    stock, kv = Case("e", "klein", "stock", side), Case("f", "klein", "kv", side)
    best, best_klein, textless = (_cheapest(told, case) for case in (flux1, klein_, replace(klein_, text=False)))
    rows = [
        ("FLUX.1 prefix against (a), both plain, batch 1", ratio(told, paper_, flux1), 4.0),
        (f"FLUX.1 prefix, batch {best.batch}, compile and FP8, against (a) plain", ratio(told, paper_, best), 8.0),
        (f"klein prefix, batch {best_klein.batch}, compile and FP8, against (a) plain",
         ratio(told, paper_, best_klein), 60.0),
        (f"klein prefix without text, batch {textless.batch}, compile and FP8, against (a) plain",
         ratio(told, paper_, textless), 60.0),
        ("klein prefix against the stock pipeline, both plain, batch 1", ratio(told, stock, klein_), 2.0),
        ("klein prefix against the KV pipeline, both plain, batch 1", ratio(told, kv, klein_), 1.3),
        ("klein prefix without text against the KV pipeline, both plain, batch 1",
         ratio(told, kv, replace(klein_, text=False)), 1.3),
    ]  # fmt: skip
    lines = [_promise(name, value, goal, "x") for name, value, goal in rows]
    for case in (replace(one, batch=16, options=options) for one in (flux1, klein_) for options in (PLAIN, COMPILED)):
        share = derived(case, told)["step % of peak"] if case.name in told["rows"] else None
        lines.append(_promise(f"{case.base} result pass at batch 16, {case.options}: share of peak", share, 50.0, " %"))
    for options, goal in ((PLAIN, 40.0), (FP8, 24.0)):
        taken = told["rows"].get(replace(flux1, batch=4, options=options).name, {}).get("peak_gib")
        lines.append(_promise(f"FLUX.1 prefix, batch 4, {options}: memory", taken, goal * 1e9 / GIB, " GiB", most=True))
    for base in ("klein", "flux1"):
        naive = Case("t", base, "train-naive", side, QUERIES)
        value = ratio(told, naive, replace(naive, way="train-ours"))
        faster = "not measured" if value is None else f"{_shown(value)}x cheaper than the naive one"
        lines.append(f"- {base}, a training step of ours: {faster} (no target)")
    return lines


def _cheapest(told: dict[str, Any], case: Case) -> Case:
    """With compile and FP8, the batch whose images cost least."""
    batches = [replace(case, batch=batch, options=FP8) for batch in (16, 4, 1)]
    return min(batches, key=lambda one: told["rows"].get(one.name, {}).get("image_s", math.inf))


def _promise(name: str, value: float | None, goal: float, unit: str, most: bool = False) -> str:
    asked = f"target {'at most' if most else 'at least'} {goal:.3g}{unit}"
    if value is None:
        return f"- {name}: not measured ({asked})"
    met = value <= goal if most else value >= goal
    return f"- {name}: {_shown(value)}{unit}, {asked}: {'met' if met else '**MISSED**'}"


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(cases_: Sequence[Case], told: dict[str, Any], sides: Sequence[int]) -> str:
    """The section for RESULTS.md."""
    here = told["machine"] or {}
    peak = ", ".join(f"{kind} {value / 1e12:.3g}" for kind, value in told["peaks"].items())
    commits = ", ".join(sorted({row["commit"] for row in told["rows"].values()})) or "none"
    lines = [
        f"## FLUX-class bases, size {told['size']}: {here.get('device')}, commit {commits}, {here.get('date')}",
        "",
        f"torch {here.get('torch')}, diffusers {here.get('diffusers')}, peft {here.get('peft')}; random weights,"
        f" bfloat16, a LoRA of rank {RANK} worn. Largest matmul, TFLOP/s: {peak or 'not measured'}.",
        "A row's s/image is the sum of its parts' medians, each as often as an image needs it; the whole run beside it"
        f" is measured in one piece, where a batch takes under {WHOLE_SECONDS:g} s. Shares of peak are of"
        " bfloat16's, in FP8 rows too. In (f) `query` is the first step, which runs the references. (t) are training"
        " steps, per query.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " ---: |" * len(COLUMNS),
        *(_line(derived(case, told)) for case in cases_ if case.name in told["rows"]),
        "",
        "FLOPs of an image (of a query in training), counted; options and batch do not change them:",
        "",
        "| row | TFLOP | (a) takes |",
        "| --- | ---: | ---: |",
        *_counts(cases_, told),
    ]
    for side in sides:
        if told["size"] == "full":
            lines += ["", f"Targets at {side} px:", "", *targets(told, side)]
    return "\n".join(lines) + "\n"


def _counts(cases_: Sequence[Case], told: dict[str, Any]) -> list[str]:
    lines = []
    for case in dict.fromkeys(map(_counted, cases_)):
        flops, of_paper = (
            told["flops"].get(one.name, {}).get("image") for one in (case, replace(PAPER, side=case.side))
        )
        if flops:
            times = f"{of_paper / flops:.3g}x" if of_paper and not case.trains else "-"
            lines.append(f"| {case.side} {_label(case)} | {flops / 1e12:.4g} | {times} |")
    return lines


def _label(case: Case) -> str:
    return f"{case.letter} {case.base} {case.way}{'' if case.text else ', no text'}"


def _line(found: dict[str, Any]) -> str:
    cells = [_shown(found[column]) for column in COLUMNS]
    error = found.get("error")
    return "| " + " | ".join([*cells[:4], error.replace("|", "/")] if error else cells) + " |"


# ---------------------------------------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and Markdown."""
    asked = _parser().parse_args(arguments)
    device = torch.device(asked.device)
    results = Results(asked.out, asked.size)
    every = cases(results.size)
    chosen = [case for case in every if not asked.rows or any(_matches(case, one) for one in asked.rows)]
    if not chosen or asked.list:
        print("\n".join(case.name for case in chosen or every))
        raise SystemExit(0 if chosen else f"No row is like {asked.rows}; above are all.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA GPU here. Give --size tiny --device cpu for a trial.")
    count_all(chosen, results)
    if device.type != "meta":
        _measure_left(chosen, results, device, asked)
    print("\n" + asked.out.with_suffix(".md").read_text())


def _measure_left(chosen: Sequence[Case], results: Results, device: torch.device, asked: argparse.Namespace) -> None:
    results.on(machine(device, asked.commit))
    results.told["peaks"] = results.told["peaks"] or peaks(device)
    rows = results.told["rows"]
    left = [case for case in chosen if case.name not in rows or (asked.retry and "error" in rows[case.name])]
    run(left, results, Bench(results.size.bases, device), asked)


def _matches(case: Case, pattern: str) -> bool:
    return fnmatch.fnmatch(case.name, f"*{pattern}*")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="full", help="Of the models and the images.")
    parser.add_argument("--device", default="cuda", help="cuda, cpu, or meta to count only.")
    parser.add_argument("--rows", nargs="+", metavar="PATTERN", help="Only these, for example 'klein prefix' '512 a*'.")
    parser.add_argument("--minutes", type=float, default=60.0, help="Begin no row later than that.")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="Results; the table goes beside it as .md.")
    parser.add_argument("--retry", action="store_true", help="Measure rows again that ended with an error.")
    parser.add_argument("--commit", default=checked_out(), help="What is measured, where there is no git to ask.")
    parser.add_argument("--list", action="store_true", help="Name the rows and measure nothing.")
    return parser


if __name__ == "__main__":
    main()
