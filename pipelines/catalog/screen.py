"""What people see of a job on their terminal, besides its progress."""

from collections.abc import Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from pipelines.catalog.forecast import Forecast
from pipelines.catalog.listing import Passed
from pipelines.catalog.report import duration, number, share
from pipelines.catalog.summary import REPORT, Summary

FAILURES_SHOWN = 10


def show_passed(console: Console, passed: Passed) -> None:
    """One quiet line for each kind of thing that was passed over."""
    for sentence in passed.told():
        console.print(escape(sentence), style="dim", highlight=False)


def show_summary(console: Console, summary: Summary) -> None:
    """The outcome of a job."""
    rows: list[tuple[str, str]] = []
    rows.append(("edited", f"[bold]{summary.done}[/] of {summary.total}"))
    rows.append(("finished before", str(summary.skipped)))
    rows.append(("failed", f"[bold red]{summary.failed}[/]" if summary.failed else "0"))
    rows.append(("time", f"{duration(summary.seconds)}, {summary.images_per_second:.2f} images/s"))
    if summary.busy is not None:
        rows.append(("workers", f"{summary.workers}, editing for {share(summary.busy)} of their time"))
    if summary.cost is not None:
        rows.append(("cost", _cost(summary.cost, summary.cost_per_1000)))
    rows.append(("images", escape(summary.report.replace(REPORT, "images"))))
    rows.append(("report", escape(summary.report)))
    if summary.failed:
        rows.append(("failures", escape(summary.failures)))
    _show(console, rows)


def _cost(cost: float, per_1000: float | None) -> str:
    return number(cost) + ("" if per_1000 is None else f", {number(per_1000)} for 1,000 images")


def show_forecast(console: Console, expected: Forecast) -> None:
    """What a job would do. Where headers were read of some images only, `about` is said of what follows from them."""
    sampled = expected.looked_at < expected.to_do
    rows: list[tuple[str, str]] = []
    rows.append(("images", f"{expected.total:,}{_bytes(expected)}"))
    rows.append(("to edit", f"[bold]{expected.to_do:,}[/]"))
    rows.append(("finished before", f"{expected.skipped:,}"))
    rows.append(("failed or sure to", f"{'about ' * sampled}{expected.failed:,}"))
    if sampled:
        rows.append(("looked at", f"{expected.looked_at:,} of them, chosen at random; so in these:"))
    rows.append(("formats", ", ".join(f"{count:,} {name}" for name, count in expected.formats.items())))
    if expected.smallest and expected.largest:
        smallest, largest = (f"{width} x {height}" for width, height in (expected.smallest, expected.largest))
        rows.append(("sizes", f"{smallest} to {largest} pixels"))
    rows.extend(_duplicates(expected))
    rows.extend(_estimate(expected))
    _show(console, rows)
    for name, code, sentence in expected.failures[:FAILURES_SHOWN]:
        console.print(f"[red]{code}[/] {escape(name)}: {escape(sentence)}", highlight=False)
    if len(expected.failures) > FAILURES_SHOWN:
        console.print(f"and {len(expected.failures) - FAILURES_SHOWN} more", highlight=False)


def _bytes(expected: Forecast) -> str:
    if not expected.sized:
        return ""
    more = "" if expected.sized == expected.total else f" in the {expected.sized:,} whose size is known"
    return f", {decimal(expected.bytes)}{more}"


def _duplicates(expected: Forecast) -> Iterator[tuple[str, str]]:
    """The superfluous copies, and the largest groups by name; nothing where there was nothing to compare."""
    found = expected.duplicates
    if not found.compared:
        return
    among = "" if found.compared == expected.total else f", among the {found.compared:,} that can be compared"
    yield "duplicates", f"{found.copies:,}{f', {decimal(found.bytes)}' if found.copies else ''}{among}"
    for images, names in found.groups:
        more = f" and {images - len(names):,} more" if images > len(names) else ""
        yield "", f"[dim]{escape(' = '.join(names))}{more}[/]"


def _estimate(expected: Forecast) -> Iterator[tuple[str, str]]:
    if expected.seconds is None or expected.seconds_per_image is None:
        return
    many = f"{expected.workers} worker{'s' * (expected.workers > 1)}"
    each, whole = duration(expected.seconds_per_image), duration(expected.seconds)
    like = " such as this machine; the cluster may have more, or others" if expected.on_cluster else ""
    yield "time", f"about {whole} of editing, {each} for each image, with {many}{like}"
    if expected.cost is not None:
        yield "cost", f"about {_cost(expected.cost, expected.cost_per_1000)}"


def _show(console: Console, rows: list[tuple[str, str]]) -> None:
    """Label and value, a line each; long paths stay whole, to be copied."""
    for label, value in rows:
        console.print(f"[dim]{label:<18}[/]{value}", soft_wrap=True, highlight=False)
