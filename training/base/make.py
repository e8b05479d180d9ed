"""Train the two parts of the miniature base, then export it: `python -m training.base.make --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKLFlux2

from infra.cli import Sentences
from training.base.architecture import RECIPES, RecipeName, new_vae
from training.base.blockpca import start_decoder, write_encoder
from training.base.export import export_base
from training.base.session import Order, train
from training.base.vae import decoder_loss, draw_images, reconstruction_psnr
from training.loop import Schedule, Trainer, generator_for

app = typer.Typer(
    cls=Sentences, help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)

Run = Annotated[Path, typer.Argument(help="Folder of this run: checkpoints and log. The same folder resumes.")]
Seed = Annotated[int, typer.Option(help="Seed of weights and data.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


@app.command()
def vae(
    run: Run,
    steps: Annotated[int, typer.Option(help="Training steps of the decoder.")] = 2000,
    batch: int = 36,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Write the encoder, then train the decoder. The transformer can train as soon as the encoder is there."""
    model = _written_vae(run / "vae", seed).to(device)
    trainer = Trainer(model.decoder, Schedule(steps=steps, rate=1.5e-3, ema=0.998), run / "decoder")
    for progress in trainer.run(decoder_loss(model, batch, seed)):
        typer.echo(progress.line())
    model.decoder.load_state_dict(trainer.average.state_dict())
    model.save_pretrained(run / "vae")
    psnr = reconstruction_psnr(model, draw_images(128, generator_for(seed + 2, 0, model.device)))
    typer.echo(f"reconstruction {psnr:.2f} dB")


def _written_vae(folder: Path, seed: int) -> AutoencoderKLFlux2:
    if not (folder / "config.json").exists():
        model = new_vae(seed).eval()
        images = draw_images(1200, generator_for(seed + 1, 0, torch.device("cpu")))
        write_encoder(model, images)
        start_decoder(model, images[:300])
        model.save_pretrained(folder)
    return AutoencoderKLFlux2.from_pretrained(folder)


@app.command()
def transformer(
    run: Run,
    steps: int = 6000,
    recipe: Annotated[RecipeName, typer.Option(help="Size and diet.")] = "cpu",
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, the rate falling to zero by then.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    compiled: Annotated[bool, typer.Option(help="torch.compile: minutes once, then faster.")] = True,
    processes: Annotated[int, typer.Option(min=1, help="That train together, a core each. Batches add up.")] = 1,
) -> None:
    """Train the transformer on the latents of the run's autoencoder.

    RUN/transformer/log.html shows the loss, the curve of every family, and samples.
    """
    train(
        Order(
            folder=run / "transformer",
            vae=run / "vae",
            recipe=RECIPES[recipe],
            steps=steps,
            seconds=minutes and minutes * 60,
            seed=seed,
            device=device,
            compiled=compiled,
            processes=processes,
        )
    )


@app.command()
def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="Where the base goes.")],
    recipe: Annotated[RecipeName, typer.Option(help="The one it was trained with.")] = "cpu",
) -> None:
    """Write the run's averaged weights as a diffusers folder."""
    export_base(run, folder, RECIPES[recipe])


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    app()
