"""Train the two parts of the miniature and export it: `python -m training.base.make vae|transformer|export RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from training.base.architecture import new_transformer, new_vae
from training.base.loop import Plan, Progress, Trainer, generator_for
from training.base.vae import draw_images, fit_normalisation, reconstruction_psnr, vae_loss

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Folder of this run: checkpoints, log, samples.")]
Seed = Annotated[int, typer.Option(help="Seed of weights and data.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


@app.command()
def vae(run: Run, steps: int = 3000, batch: int = 36, seed: Seed = 0, device: Device = "cpu") -> None:
    """Train the autoencoder; resumes from its checkpoint."""
    model = new_vae(seed).to(device)
    trainer = Trainer(model, Plan(steps=steps, rate=2e-3, ema=0.998), run / "vae")
    for progress in trainer.run(vae_loss(model, batch, seed)):
        _show(progress, steps)
    average = trainer.average
    fit_normalisation(average, seed)
    average.save_pretrained(run / "vae")
    psnr = reconstruction_psnr(average, lambda: draw_images(128, generator_for(seed + 2, 0, average.device)))
    typer.echo(f"reconstruction {psnr:.2f} dB")


def _show(progress: Progress, steps: int) -> None:
    left = (steps - progress.step) / max(progress.step, 1)
    del left
    typer.echo(
        f"step {progress.step}/{steps}  loss {progress.loss:.4f}  {progress.samples_per_second:.0f} samples/s",
    )


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    app()
