"""What people see of a job on their terminal, besides its progress."""

from rich.console import Console
from rich.markup import escape

from pipelines.catalog.forecast import Forecast
from pipelines.catalog.job import Summary
from pipelines.catalog.listing import Passed
from pipelines.catalog.report import duration

FAILURES_SHOWN = 10


def show_passed(console: Console, passed: Passed) -> None:
    """One quiet line for each kind of thing that was passed over."""
    if passed.ignored:
        more = ", …" if passed.ignored > len(passed.names) else ""
        _aside(console, f"Not images, ignored: {passed.ignored} ({', '.join(passed.names)}{more})")
    if passed.left_out:
        _aside(console, f"Inside the output folder, left out: {passed.left_out}")
    if passed.repeated:
        _aside(console, f"Rows that name an image again: {passed.repeated}")
    if passed.blank:
        _aside(console, f"Rows without a uri: {passed.blank}")


def _aside(console: Console, text: str) -> None:
    console.print(escape(text), style="dim", highlight=False)


def show_summary(console: Console, summary: Summary) -> None:
    """The outcome of a job."""
    rows: list[tuple[str, str]] = []
    rows.append(("edited", f"[bold]{summary.done}[/] of {summary.total}"))
    rows.append(("finished before", str(summary.skipped)))
    rows.append(("failed", f"[bold red]{summary.failed}[/]" if summary.failed else "0"))
    rows.append(("time", f"{duration(summary.seconds)}, {summary.images_per_second:.2f} images/s"))
    rows.append(("images", escape(summary.report.replace("report.html", "images"))))
    rows.append(("report", escape(summary.report)))
    _show(console, rows)


def show_forecast(console: Console, expected: Forecast) -> None:
    """What a job would do."""
    rows: list[tuple[str, str]] = []
    rows.append(("images", str(expected.total)))
    rows.append(("to edit", f"[bold]{expected.to_do}[/]"))
    rows.append(("finished before", str(expected.skipped)))
    rows.append(("failed or sure to", str(expected.failed)))
    rows.append(("formats", ", ".join(f"{count} {name}" for name, count in expected.formats.items())))
    if expected.smallest and expected.largest:
        smallest, largest = (f"{width} x {height}" for width, height in (expected.smallest, expected.largest))
        rows.append(("sizes", f"{smallest} to {largest} pixels"))
    if expected.seconds is not None and expected.seconds_per_image is not None:
        each, whole = duration(expected.seconds_per_image), duration(expected.seconds)
        rows.append(("time", f"about {whole} of editing, {each} for each image"))
    _show(console, rows)
    for name, code, sentence in expected.failures[:FAILURES_SHOWN]:
        console.print(f"[red]{code}[/] {escape(name)}: {escape(sentence)}", highlight=False)
    if len(expected.failures) > FAILURES_SHOWN:
        console.print(f"and {len(expected.failures) - FAILURES_SHOWN} more")


def _show(console: Console, rows: list[tuple[str, str]]) -> None:
    """Label and value, a line each; long paths stay whole, to be copied."""
    for label, value in rows:
        console.print(f"[dim]{label:<18}[/]{value}", soft_wrap=True, highlight=False)
