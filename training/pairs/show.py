"""Checked pairs as people and programs get to see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.errors import OutputError
from pipelines.pairs.check import Checked
from pipelines.pairs.source import Reading
from training.sheet import SheetRow, contact_sheet

SHOWN = 60  # pairs on a sheet
NAMED = 3  # files of those that were left aside


def show_table(console: Console, reading: Reading, checked: Sequence[Checked], sheet: Path) -> None:
    """One line a pair, then how they were read, what was left aside, and the count."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("pair", "edit", "usable", "why"):
        table.add_column(heading, overflow="fold")
    for each in checked:
        verdict = "[green]yes[/]" if each.pair else f"[red]no[/]  {each.code}"
        name, edit, why = map(escape, (each.name, each.edit or "-", each.reason or each.note or ""))
        table.add_row(name, edit, verdict, why)
    console.print(table)
    _show_reading(console, reading)
    edits = {each.edit for each in checked if each.pair}
    several = f" of {len(edits)} edits" if len(edits) > 1 else ""
    console.print(f"{sum(bool(each.pair) for each in checked)} of {len(checked)} pairs{several} can be used: {sheet}")


def _show_reading(console: Console, reading: Reading) -> None:
    console.print(f"\nread as        {reading.naming}", highlight=False, markup=False)
    aside = {"half a pair?": reading.halves, "other images": reading.images, "other files": reading.files}
    for label, names in aside.items():
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            told = ", ".join(names[:NAMED]).encode(errors="backslashreplace").decode()  # names need not be UTF-8
            console.print(f"{label:<14} {told}{more}", highlight=False, markup=False, soft_wrap=True)


def to_json(source: str, reading: Reading, checked: Sequence[Checked], sheet: Path) -> str:
    """One object with a row for each pair, how they were read, and the files that were left aside."""
    rows = [
        {
            "name": each.name,
            "edit": each.edit,
            "usable": each.pair is not None,
            "code": each.code,
            "reason": each.reason,
            "note": each.note,
        }
        | _alignment(each)
        for each in checked
    ]
    return json.dumps(
        {
            "source": source,
            "naming": str(reading.naming),
            "usable": sum(row["usable"] for row in rows),
            "sheet": str(sheet),
            "pairs": rows,
            "left_aside": {"halves": reading.halves, "images": reading.images, "files": reading.files},
        }
    )


def _alignment(each: Checked) -> dict[str, float | bool | None]:
    """Numbers where they can be told: pixels to the right and down, 1.07 for 7 % larger, degrees clockwise."""
    found = each.alignment
    numbers = {
        name: round(getattr(found, name), 4) if found else None for name in ("shift_x", "shift_y", "zoom", "turn")
    }
    return numbers | {"misaligned": found.off if found else None}


def write_sheet(path: Path, checked: Sequence[Checked]) -> None:
    """Draw the usable pairs, before beside after, and the reasons of the others. Raises `OutputError`."""
    rows = [
        SheetRow(
            each.name if each.pair else f"{each.name}: {each.reason}",
            (each.pair.before, each.pair.after) if each.pair else each.seen,
            faint=each.pair is None,
        )
        for each in checked[:SHOWN]
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(("before", "after"), rows).save(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"The sheet cannot be written to {path}: {error}. Give another --sheet FILE.png.") from error


def tell_unusable(console: Console, checked: Sequence[Checked]) -> None:
    """One line for each pair that is left out or misaligned, and the count of those that are used."""
    for each in checked:
        if not each.pair:
            console.print(f"[yellow]left out[/]  {each.name}: {each.reason}", highlight=False)
        elif each.alignment and each.alignment.off:
            console.print(f"[yellow]look at[/]   {each.name}: {each.note}", highlight=False)
    used = [each.pair for each in checked if each.pair]
    several = f" of {len({pair.edit for pair in used})} edits" if len({pair.edit for pair in used}) > 1 else ""
    console.print(f"{len(used)} pair{'s' * (len(used) != 1)}{several}", highlight=False)
