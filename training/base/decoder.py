"""Train a base's decoder on its transformer's own results: `python -m training.base.decoder FOLDER --steps 400`.

The results that a small transformer paints are soft in a way of their own, which a decoder can learn to undo in part.
True latents are mixed in, so that what the edit leaves alone stays as sharp as it was. Encoder, latents and
configuration stay as they are, and so does the transformer: FOLDER takes an autoencoder that replaces the base's, and
what is needed to resume.

Letters: N tuples, S tokens, C channels.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.transfer import Editor, bases, passes
from pipelines.transfer.family import Family
from pipelines.transfer.layout import Grid
from pipelines.transfer.sampler import denoise
from training.base.crisp import picture_loss
from training.loop import Loss, Schedule, Trainer, generator_for
from training.scenes import COMPOSITIONS, EVERY_FAMILY, FAMILIES, draw_parameters, draw_subjects, render

QUERIES = 4  # asked of each pair
TRUE_SHARE = 3  # one crop in so many is decoded from its true latents
LATENT_NOISE = 0.04  # on true latents, as in the first training of the decoder
WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers calls them
CROP = 4  # tokens a side: the decoder was made on pictures of this size


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a transformer paints, (N, S, C) tokens, beside the true ones, the true pictures (N, 3, H, W) in [-1, 1], and
    how much the edit changes at each token, (N, S)."""

    tokens: Tensor
    true_tokens: Tensor
    pictures: Tensor
    changes: Tensor


@torch.no_grad()
def own_results(editor: Editor, count: int, seed: int) -> Results:
    """About `count` training tuples of all families in turn, edited with the base's own number of steps."""
    families = [*FAMILIES, *COMPOSITIONS]
    parts = [
        _asked(editor, families[index % len(families)], generator_for(seed, index, torch.device("cpu")))
        for index in range(math.ceil(count / QUERIES))
    ]
    return Results(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def _asked(editor: Editor, name: str, generator: torch.Generator) -> Results:
    """One pair, and what the base makes of some queries."""
    family, edit = editor.family, EVERY_FAMILY[name]
    side = math.isqrt(editor.max_area) // family.multiple * family.multiple
    grid = family.grid(side, side)
    parameters = draw_parameters(edit, 1, generator)
    scenes = draw_subjects(edit, 1 + QUERIES, (side, side), generator)
    edited = edit.apply(scenes, parameters.expand(len(scenes.parts), -1))
    befores, afters = (render(scene, (side, side)) * 2 - 1 for scene in (scenes, edited))
    shown, true = family.encode(befores), family.encode(afters)
    prefix = passes.remember(family, [(shown[:1], true[:1])], [(grid, grid)], editor.attention)
    plan = prefix.layout(grid)
    seeds = torch.randint(2**31, (QUERIES,), generator=generator).tolist()
    noise = family.noise(seeds, plan.result).to(family.device)
    sigmas = family.sigmas(editor.default_steps, plan.result.tokens)
    tokens = denoise(passes.velocity_field(family, shown[1:], prefix, plan), noise, sigmas)
    changes = (shown[1:] - true[1:]).square().mean(2)
    return Results(tokens=tokens, true_tokens=true[1:], pictures=afters[1:], changes=changes)


def crisp_loss(family: Family, results: Results, grid: Grid, batch: int, seed: int, contrast: float) -> Loss:
    """`picture_loss` of decoded crops about tokens that the edit changes, some of them from true latents."""

    def loss(step: int) -> tuple[Tensor, int]:
        generator = generator_for(seed, step, torch.device("cpu"))
        chosen = torch.randint(len(results.tokens), (batch,), generator=generator)
        true = torch.arange(batch) % TRUE_SHARE == 0
        noisy = results.true_tokens[chosen]
        noisy = noisy + LATENT_NOISE * torch.randn(noisy.shape, generator=generator)
        tokens = torch.where(true[:, None, None], noisy, results.tokens[chosen])
        about = torch.multinomial(results.changes[chosen] + 1e-6, 1, generator=generator)[:, 0]
        corners = [_corner(int(token), grid, generator) for token in about]
        cut = torch.cat([_tokens_of(t, grid, corner) for t, corner in zip(tokens, corners, strict=True)])
        truth = torch.stack(
            [
                _pixels_of(p, family.multiple, corner)
                for p, corner in zip(results.pictures[chosen], corners, strict=True)
            ]
        )
        return picture_loss(family.decode(cut, (CROP, CROP)), truth, contrast), batch

    return loss


def _corner(token: int, grid: Grid, generator: torch.Generator) -> tuple[int, int]:
    """Where a crop that holds the token begins, in tokens."""
    shift = torch.randint(CROP, (2,), generator=generator).tolist()
    row, column = (
        min(max(at - by, 0), side - CROP) for at, by, side in zip(divmod(token, grid[1]), shift, grid, strict=True)
    )
    return row, column


def _tokens_of(tokens_SC: Tensor, grid: Grid, corner: tuple[int, int]) -> Tensor:
    row, column = corner
    return tokens_SC.unflatten(0, grid)[row : row + CROP, column : column + CROP].reshape(1, CROP * CROP, -1)


def _pixels_of(picture_3HW: Tensor, multiple: int, corner: tuple[int, int]) -> Tensor:
    row, column = (at * multiple for at in corner)
    return picture_3HW[:, row : row + CROP * multiple, column : column + CROP * multiple]


def train_decoder(
    editor: Editor, results: Results, schedule: Schedule, work: Path, *, batch: int, seed: int, contrast: float
) -> None:
    """Train the decoder of the editor's autoencoder; `work` takes checkpoints, and resumes."""
    vae = editor.family.vae.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    vae.requires_grad_(False)
    trainer = Trainer(vae.decoder.requires_grad_(True), schedule, work)
    side = math.isqrt(results.tokens.shape[1])
    for progress in trainer.run(crisp_loss(editor.family, results, (side, side), batch, seed, contrast)):
        _say(progress.line())
    vae.decoder.load_state_dict(trainer.average.state_dict())


def main(arguments: list[str] | None = None) -> None:
    """From the command line."""
    options = _parse(arguments)
    folder = bases.find_base(options.base)
    editor = Editor.load(folder, device="cpu")
    results = own_results(editor, options.tuples, options.seed)
    _say(f"{len(results.tokens)} results painted")
    schedule = Schedule(
        steps=options.steps, rate=options.rate, warmup=20, cooldown=0.5, weight_decay=0.0, ema=0.98, log_every=25
    )
    work, more = options.folder / "decoder", {"batch": options.batch, "seed": options.seed}
    train_decoder(editor, results, schedule, work, **more, contrast=options.contrast)
    made = options.folder / "base"
    shutil.copytree(folder, made, dirs_exist_ok=True)
    weights = {name: weight.contiguous() for name, weight in editor.family.vae.state_dict().items()}
    save_file(weights, made / "vae" / WEIGHTS, metadata={"format": "pt"})
    _say(f"The base with its new decoder is in {made}: edit-transfer evaluate --base {made}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.base.decoder", description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="takes checkpoints, and the new base when it is done")
    parser.add_argument("--base", help="whose decoder; the bundled base by default")
    parser.add_argument("--tuples", type=int, default=400, help="results that the base paints to learn from")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=12, help="crops of 64 px in a step")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--contrast", type=float, default=0.0, help="weight of the strength of edges")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
