"""What people see of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.catalog.planning import CONTEXT, GB, LOST, Fit, Plan, flags, gb, reason, recommended, way


def show_plan(console: Console, plan: Plan) -> None:
    """The numbers of the base, then what fits each card."""
    for label, value in _base(plan):
        console.print(f"[dim]{label:<18}[/]{escape(value)}", soft_wrap=True, highlight=False)
    for fits in plan.fits:
        console.print(_table(fits, plan.batch))
        console.print(escape(_advice(fits, plan)), soft_wrap=True, highlight=False)


def _base(plan: Plan) -> Iterator[tuple[str, str]]:
    plain, (width, height) = plan.fits[0][0].footprint, plan.size
    weights = {way(fit.footprint.tuning): gb(fit.footprint.transformer) for fit in plan.fits[0]}
    one = {name: gb(slope.at(1)) for name, slope in plain.passes.items()}
    images = f"batches of {plan.batch}" if plan.batch > 1 else "one image at a time"
    yield "base", f"{plan.base}, {plan.attention} attention, {width} x {height} pixels"
    yield "transformer", ", ".join(f"{size} GB in {name}" for name, size in weights.items())
    yield "beside it", f"VAE {gb(plain.vae)}, LoRA of rank {' and '.join(map(str, plan.ranks))} {gb(plain.adapter)}"
    yield "text encoders", "never loaded"
    yield (
        "kept",
        f"{gb(plain.pair)} of each pair ({plain.pairs} here); {gb(plain.query)} of each image of a batch",
    )
    yield "a pass takes", f"{one['pair']} (pair), {one['query']} (query) and {one['step']} (step) for each image"
    yield "the VAE takes", f"{one['encode']} to encode and {one['decode']} to decode, image by image"
    yield "kept free", f"{CONTEXT / GB:g} for CUDA and its libraries, {LOST:.0%} of the card for gaps between tensors"
    yield "GB", "10^9 bytes; most cards have a little more than they are sold by (24 GiB = 25.8 GB)"
    yield "GPU", "as it is now" if plan.gpus else "as asked for" if plan.asked else "none here, so for some others"
    yield "below", f"{images}, eager (compiled takes less); `batch` is the largest that fits"


def _table(fits: Sequence[Fit], batch: int) -> Table:
    card = fits[0].card
    name = f"{card.memory / GB:.3g} GB" + (f" free on {card.name}" if card.name else "")
    title = escape(f"\n{name}, {gb(card.reserve)} of them kept free")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("way", "weights", "kept", "a pass", "sum", "batch", "verdict"):
        table.add_column(column, justify="left" if column in ("way", "a pass", "verdict") else "right")
    for fit in fits:
        footprint, lacking = fit.footprint, fit.missing(batch)
        worst = footprint.worst(batch)
        table.add_row(
            way(footprint.tuning),
            gb(footprint.weights),
            gb(footprint.kept(worst, batch)),
            f"{gb(footprint.passes[worst].at(batch))} {worst}",
            gb(fit.total(batch)),
            str(fit.largest or "-"),
            f"[red]lacks {gb(lacking)}[/]" if lacking else "[green]fits[/]",
        )
    return table


def _advice(fits: Sequence[Fit], plan: Plan) -> str:
    best = recommended(fits)
    if best:
        return f"edit-transfer apply --base {plan.base} {flags(best)}".rstrip() + f"\n{reason(best)}"
    least = min(fits, key=lambda fit: fit.total(plan.batch))
    return (
        f"Does not fit: {way(least.footprint.tuning)} lacks {gb(least.missing(plan.batch))} GB. Smaller images take"
        " less (max_area in the base's edit_transfer.json), and so do adapters with compact pairs."
    )
