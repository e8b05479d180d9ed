"""`edit-transfer train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.registry.cli import address

if TYPE_CHECKING:
    from rich.console import Console

    from training.fit.train import Trained

DATA, LORA, RUN, OUTCOME = "The pairs", "The adapter", "The run", "What is shown"


def train(
    name: Annotated[str, typer.Option(help="Name of the adapter in the registry.", rich_help_panel=DATA)],
    pairs: Annotated[
        str,
        typer.Option(
            metavar="DIR|TABLE",
            help="NAME_before.* and NAME_after.* (other namings: `pairs check --help`), or a table with before, after[,"
            " edit]; local or s3://.",
            rich_help_panel=DATA,
        ),
    ],
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|TABLE",
            help="Pairs of other edits, at which the base shall stay as it is. Default: what the base names itself.",
            rich_help_panel=DATA,
        ),
    ] = None,
    mirrored: Annotated[
        bool,
        typer.Option(
            "--mirrored", help="The edit has no left and right: learn from mirrored pairs too.", rich_help_panel=DATA
        ),
    ] = False,
    align: Annotated[
        bool,
        typer.Option("--align", help="Mend pairs whose after is shifted, zoomed or turned.", rich_help_panel=DATA),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|ID", help="Pretrained base. Default: EDIT_TRANSFER_BASE or bundled.", rich_help_panel=LORA
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Of the LoRA. Default: 16, from 5 pairs on 32.", rich_help_panel=LORA)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most. Default: what the base asks for (80 for the bundled one), from 17 pairs on more.",
            rich_help_panel=LORA,
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate. Default: the base's.", rich_help_panel=LORA)
    ] = None,
    compact: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            max=8,
            help="Show pairs at 1/K of the side, a K*K-th of the tokens. Default: 1.",
            rich_help_panel=LORA,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Another number gives another adapter.", rich_help_panel=LORA)
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that train together. Default: GPUs, or cores.", rich_help_panel=RUN),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="`float32` or `bfloat16`. Default: bfloat16 on a GPU.", rich_help_panel=RUN)
    ] = None,
    quantised: Annotated[
        str | None,
        typer.Option(help="Keep the frozen base as `float8`; sets --checkpointing.", rich_help_panel=RUN),
    ] = None,
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Less memory for more time: compute layers twice.", rich_help_panel=RUN),
    ] = False,
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Default: EDIT_TRANSFER_REGISTRY or ~/.edit-transfer/registry.", rich_help_panel=RUN
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Gets TensorBoard events and samples. Default: runs/NAME.", rich_help_panel=OUTCOME
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=OUTCOME)
    ] = False,
) -> None:
    """Train an adapter from before/after pairs, and publish it.

    One pair is enough to try, five to twenty are good. Some are held out, and decide (eight of them at most) which
    moment of the training is kept. Pairs of several edits (column `edit`, or sub-folders) train one adapter that reads
    the edit off a pair. Run the same command again after a stop: it goes on. The first version becomes NAME@production.
    """
    from rich.console import Console

    from infra import settings
    from training.fit import train as training
    from training.fit.options import Options
    from training.pairs.show import tell_unusable

    environment, asides = settings.from_environment(), Console(stderr=True)
    options = Options(
        name=name,
        pairs=pairs,
        keep=keep,
        align=align,
        mirrored=mirrored,
        base=base,
        rank=rank,
        steps=steps,
        rate=rate,
        seed=seed,
        workers=workers,
        precision=precision,
        quantised=quantised,
        checkpointing=checkpointing,
        compact=compact,
        registry=address(registry),
    )
    work = training.prepare(options, environment, lambda checked: tell_unusable(asides, checked))
    trained = training.train(work, options, environment, log or Path("runs", name), asides)
    typer.echo(_to_json(trained)) if as_json else _tell(Console(), trained, log or Path("runs", name))


def _to_json(trained: Trained) -> str:
    version = trained.version
    told = {"name": version.name, "version": version.number, "digest": version.digest, "uri": version.uri}
    return json.dumps(told | {"new": trained.new, "production": trained.promoted, "scores": version.about["scores"]})


def _tell(console: Console, trained: Trained, log: Path) -> None:
    from training.fit.publishing import scored_by

    version = trained.version
    scores, training, scored = version.about["scores"], version.about["training"], scored_by(version.about)
    console.print(
        f"published        [bold]{version.ref}[/]{'' if trained.new else ' (by an earlier run)'}", highlight=False
    )
    console.print(f"score            {scores['balanced']:.1f} dB on {scored}; base alone {scores['base_balanced']:.1f},"
                  f" untouched {scores['copy']:.1f}", highlight=False)  # fmt: skip
    if scores["held_out_pairs"] and scores["balanced"] <= scores["base_balanced"]:
        console.print("[yellow]The base alone does as well: look at the samples before you use this adapter.[/]")
    console.print(f"training         {training['steps_taken']} steps, {training['seconds']:.0f} s", highlight=False)
    console.print(f"samples          {version.uri}/samples.png", highlight=False, soft_wrap=True)
    console.print(f"log              tensorboard --logdir {log}", highlight=False, soft_wrap=True)
    ref = f"{version.name}@production" if trained.promoted else version.ref
    console.print(f"\nedit-transfer apply --adapter {ref} --input DIR --output DIR", highlight=False)
    if trained.new and not trained.promoted:
        console.print(f"edit-transfer adapters promote {version.ref}    once you like it", highlight=False)


def retrain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The adapter in the registry.")],
    pairs: Annotated[
        str, typer.Option(metavar="DIR|TABLE", help="Where pairs arrive: a folder, an s3:// prefix or a table.")
    ],
    min_new_pairs: Annotated[
        int, typer.Option(min=2, help="Train only if production has not seen this many.", rich_help_panel=DATA)
    ] = 3,
    min_gain: Annotated[
        float, typer.Option(help="dB by which the new version must beat production.", rich_help_panel=DATA)
    ] = 0.1,
    keep: Annotated[str | None, typer.Option(metavar="DIR|TABLE", help="As in `train`.", rich_help_panel=DATA)] = None,
    align: Annotated[bool, typer.Option("--align", help="As in `train`.", rich_help_panel=DATA)] = False,
    base: Annotated[str | None, typer.Option(metavar="FOLDER|ID", help="As in `train`.", rich_help_panel=LORA)] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="As in `train`.", rich_help_panel=LORA)] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="As in `train`.", rich_help_panel=LORA)] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="As in `train`.", rich_help_panel=LORA)] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="As in `train`.", rich_help_panel=RUN)] = None,
    registry: Annotated[str | None, typer.Option(metavar="URI", help="As in `train`.", rich_help_panel=RUN)] = None,
    log: Annotated[Path | None, typer.Option(metavar="DIR", help="As in `train`.", rich_help_panel=OUTCOME)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=OUTCOME)
    ] = False,
) -> None:
    """Train NAME again if enough new pairs have come, and promote what is better than production.

    For a scheduler: safe to run twice, one at a time per adapter. A third of the new pairs is kept from training;
    production and the candidate are both judged by them, and the base alone where nothing is production yet.
    Exit codes: 0 promoted, or nothing to do; 4 the candidate is not better; 5 another training is under way;
    2 nothing was started; 1 it broke, run it again to go on.
    """
    from dataclasses import asdict

    from rich.console import Console

    from infra import settings
    from infra.errors import EXIT_REFUSED
    from training.fit import retrain as retraining
    from training.fit.options import Options

    environment = settings.from_environment()
    options = Options(
        name=name,
        pairs=pairs,
        keep=keep,
        align=align,
        base=base,
        rank=rank,
        steps=steps,
        seed=seed,
        workers=workers,
        registry=address(registry),
    )
    outcome = retraining.retrain(
        options,
        environment,
        log or Path("runs", name),
        Console(stderr=True),
        enough=min_new_pairs,
        better_by=min_gain,
    )
    told = f"{outcome.outcome.replace('_', ' ')}: {outcome.why}"
    typer.echo(json.dumps(asdict(outcome)) if as_json else told)
    if outcome.outcome == retraining.REFUSED:
        raise typer.Exit(EXIT_REFUSED)
