"""What people see of a registry on their terminal. What a version tells about itself is shown where it does."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from infra import registry as registries
from infra.errors import AdapterDamaged
from infra.registry import reading
from infra.registry.garbage import Garbage
from infra.registry.reading import Version

Row = dict[str, Any]
UNBROKEN = 1000  # columns of a table that no person's terminal has to hold: no cell of it is broken into lines


def name_rows(registry: str) -> list[Row]:
    """One row for each adapter, about its newest version. Raises StoreError."""
    return [_name_row(registry, name) for name in registries.names(registry)]


def version_rows(registry: str, name: str) -> list[Row]:
    """One row for each version, the newest first. Raises AdapterNotFound if there is none."""
    numbers = reading.numbers(registry, name)
    if not numbers:
        raise reading.not_found(registry, name)
    pointing: dict[int, list[str]] = {}
    for alias, move in registries.aliases(registry, name).items():
        pointing.setdefault(move.version, []).append(alias)
    rows = ((number, _told(registry, name, number)) for number in reversed(numbers))
    return [{"version": number, "aliases": pointing.get(number, [])} | told for number, told in rows]


def show_rows(rows: list[Row], if_none: str) -> None:
    """The rows as a table."""
    if not rows:
        _print(if_none)
        return
    table = _table(*rows[0])
    for row in rows:
        shown = (_minute(value) if key in ("at", "created") else _text(value) for key, value in row.items())
        table.add_row(*map(escape, shown))
    console = Console()
    (console if console.is_terminal else Console(width=UNBROKEN)).print(table)


def show_history(rows: list[Row], if_none: str) -> None:
    """Every move of an alias, the latest first."""
    shown = [
        {
            "": "now" if row is rows[-1] else "",
            "version": row["version"],
            "at": row["at"],
            "by": row["by"],
            "why": ("rollback" + (f": {row['why']}" if row["why"] else "")) if row["rollback"] else row["why"],
        }
        for row in reversed(rows)
    ]
    show_rows(shown, if_none)


def show_garbage(found: list[Garbage], dry_run: bool) -> None:
    """What was removed, or would be."""
    for each in found:
        _print(f"{each.why:<32}{each.uri}")
    size = _size(sum(each.size for each in found))
    _print(f"{len(found)} objects, {size} {'would be removed' if dry_run else 'removed'}.")


def show_version(version: Version, pointing: list[str], card: str | None) -> None:
    """One version, a line for each thing known, and its card."""
    about = version.about
    lines: list[tuple[str, Any]] = [
        ("adapter", f"{version.ref}{' = ' if pointing else ''}{', '.join(pointing)}"),
        ("digest", version.digest),
        ("created", f"{_minute(about.get('created_at'))} by {about.get('by')}"),
        ("base", _base(about)),
        ("attention", about.get("attention")),
        ("compact", about.get("compact")),
        ("rank", about.get("rank")),
        ("edits", about.get("edits")),
        ("pairs", _pairs(about.get("pairs"))),
        ("exemplars", about.get("exemplars")),
        *_flat("approximation", about.get("approximation")),
        *_flat("scores", about.get("scores")),
        *_flat("training", about.get("training")),
        ("address", version.uri),
        *(
            (("files", "")[number > 0], f"{path} ({_size(entry['size'])})")
            for number, (path, entry) in enumerate(version.files.items())
        ),
    ]
    for label, value in lines:
        if value not in (None, "", []):
            Console().print(f"[dim]{label:<12}[/]{escape(_text(value))}", soft_wrap=True, highlight=False)
    if card:
        Console().print("", Markdown(card), sep="\n")


def _name_row(registry: str, name: str) -> Row:
    newest = reading.numbers(registry, name)[-1]
    try:
        move = registries.aliases(registry, name).get(registries.PRODUCTION)
    except AdapterDamaged:
        return {"name": name, "newest": newest, "production": "damaged"} | _told(registry, name, newest)
    return {"name": name, "newest": newest, "production": move and move.version} | _told(registry, name, newest)


def _told(registry: str, name: str, number: int) -> Row:
    try:
        version = reading.peek(registry, name, number)
    except AdapterDamaged:
        return {"base": "damaged", "score": None, "created": None}
    about = version.about if version else {}
    return {"base": _base(about), "score": _score(about.get("scores")), "created": about.get("created_at")}


def _base(about: dict[str, Any]) -> str | None:
    base = about.get("base")
    return base.get("name") if isinstance(base, dict) else base


def _score(scores: Any) -> float | None:
    """The one number that stands for a version: the first that its scores name."""
    if isinstance(scores, dict):
        found = (value for value in scores.values() if isinstance(value, int | float))
        return next(found, None)
    return None


def _pairs(pairs: Any) -> str | None:
    if not isinstance(pairs, list):
        return None
    names = [f"{pair.get('name')}{' (held out)' if pair.get('role') == 'held_out' else ''}" for pair in pairs]
    return f"{len(pairs)}: {', '.join(names)}"


def _flat(label: str, values: Any) -> Iterable[tuple[str, str]]:
    if isinstance(values, dict):
        for number, (key, value) in enumerate(values.items()):
            yield label if number == 0 else "", f"{key} {_text(value)}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    return str(value)


def _minute(at: Any) -> str:
    return str(at)[:16].replace("T", " ") if at else "-"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _print(text: str) -> None:
    Console().print(escape(text), soft_wrap=True, highlight=False)
