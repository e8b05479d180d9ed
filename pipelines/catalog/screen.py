"""What people see of a job on their terminal, besides its progress."""

from pathlib import PurePosixPath

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.catalog.forecast import Forecast
from pipelines.catalog.job import Summary
from pipelines.catalog.listing import Catalog
from pipelines.catalog.report import duration

FAILURES_SHOWN = 10


def show_catalog(console: Console, catalog: Catalog) -> None:
    """One quiet line for each kind of thing that was passed over."""
    if catalog.ignored:
        names = ", ".join(PurePosixPath(uri).name for uri in catalog.ignored[:3])
        more = ", …" if len(catalog.ignored) > 3 else ""
        _aside(console, f"Not images, ignored: {len(catalog.ignored)} ({names}{more})")
    if catalog.left_out:
        _aside(console, f"Inside the output folder, left out: {catalog.left_out}")
    if catalog.repeated:
        _aside(console, f"Rows that name an image again: {catalog.repeated}")
    if catalog.blank:
        _aside(console, f"Rows without a uri: {catalog.blank}")


def _aside(console: Console, text: str) -> None:
    console.print(escape(text), style="dim", highlight=False)


def show_summary(console: Console, summary: Summary) -> None:
    """The outcome of a job."""
    table = _table()
    table.add_row("edited", f"[bold]{summary.done}[/] of {summary.total}")
    table.add_row("finished before", str(summary.skipped))
    table.add_row("failed", f"[bold red]{summary.failed}[/]" if summary.failed else "0")
    table.add_row("time", f"{duration(summary.seconds)}, {summary.images_per_second:.2f} images/s")
    table.add_row("images", escape(summary.report.replace("report.html", "images")))
    table.add_row("report", escape(summary.report))
    console.print(table)


def show_forecast(console: Console, expected: Forecast) -> None:
    """What a job would do."""
    table = _table()
    table.add_row("images", str(expected.total))
    table.add_row("to edit", f"[bold]{expected.to_do}[/]")
    table.add_row("finished before", str(expected.skipped))
    table.add_row("failed or sure to", str(expected.failed))
    table.add_row("formats", ", ".join(f"{count} {name}" for name, count in expected.formats.items()))
    if expected.smallest and expected.largest:
        smallest, largest = (f"{width} x {height}" for width, height in (expected.smallest, expected.largest))
        table.add_row("sizes", f"{smallest} to {largest} pixels")
    if expected.seconds is not None and expected.seconds_per_image is not None:
        each, whole = duration(expected.seconds_per_image), duration(expected.seconds)
        table.add_row("time", f"about {whole} of editing, {each} for each image")
    console.print(table)
    for name, code, sentence in expected.failures[:FAILURES_SHOWN]:
        console.print(f"[red]{code}[/] {escape(name)}: {escape(sentence)}", highlight=False)
    if len(expected.failures) > FAILURES_SHOWN:
        console.print(f"and {len(expected.failures) - FAILURES_SHOWN} more")


def _table() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table
