"""`edit-transfer pairs check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

pairs_app = typer.Typer(help="Look at before/after pairs before training with them.", no_args_is_help=True)


@pairs_app.callback()
def root() -> None:
    """Look at before/after pairs before training with them."""


@pairs_app.command()
def check(
    source: Annotated[
        str, typer.Argument(metavar="DIR|TABLE", help="Folder or prefix of NAME_before.*, NAME_after.*, or a table.")
    ],
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes, a PNG.")] = Path("pairs.png"),
    align: Annotated[
        bool,
        typer.Option("--align", help="Mend pairs whose after is shifted, zoomed or turned, as `train --align` does."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say which pairs can be used and why not the others, and show them all on a sheet.

    A pair is NAME_before.* and NAME_after.* (any image format, the same framing), or a row of a Parquet or CSV table
    with the columns `before`, `after` and, for several edits, `edit`. Sub-folders tell edits apart, too.
    What other trainers read is read as it is: NAME_start and NAME_end, NAME_input and NAME_target, before_NAME and
    after_NAME; folders with equal file names: before/ and after/, control/ or source/ and target/, control_1/ and
    main/; tables, JSON too, with `image` (the target) and `edit_image`. One folder keeps to one of them.
    Exit codes: 0 all usable, 3 some are not, 2 none is.
    """
    from rich.console import Console

    from infra import settings
    from infra.errors import EXIT_SOME_FAILED
    from pipelines.pairs.check import check_found, usable
    from pipelines.pairs.source import read_pairs
    from training.pairs.show import show_table, to_json, write_sheet

    reading = read_pairs(source)
    checked = check_found(reading.found, settings.from_environment().max_pixels, align)
    write_sheet(sheet, checked)
    if as_json:
        typer.echo(to_json(source, reading, checked, sheet))
    else:
        show_table(Console(), reading, checked, sheet)
    if len(usable(checked, source)) < len(checked):
        raise typer.Exit(EXIT_SOME_FAILED)
