"""Aliases: logs whose highest entry says which version an alias means. A rollback is one more entry."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from types import EllipsisType
from typing import Any

from infra.errors import AdapterDamaged, AliasMoved, RegistryError
from infra.registry import document, layout, log, reading
from infra.registry.layout import PRODUCTION
from infra.registry.reading import Version


@dataclass(frozen=True)
class Move:
    """One entry of an alias: from then on it meant this version."""

    number: int
    version: int
    digest: str
    by: str
    at: str
    why: str
    rollback: bool = False


def aliases(registry: str, name: str) -> dict[str, Move]:
    """Where each alias points now. Raises AdapterDamaged for a broken entry."""
    found = sorted({path.parts[0] for path, _ in layout.below(layout.aliases_uri(registry, name))})
    ruling = ((alias, current(registry, name, alias)) for alias in found)
    return {alias: move for alias, move in ruling if move}


def history(registry: str, name: str, alias: str = PRODUCTION) -> list[Move]:
    """Every move of an alias, the oldest first. Raises AdapterDamaged for a broken entry."""
    uri = layout.alias_uri(registry, name, alias)
    return [_move(uri, number, entry) for number, entry in log.entries(uri)]


def current(registry: str, name: str, alias: str = PRODUCTION) -> Move | None:
    """The move that rules: the latest one to a version that was not deleted. Raises AdapterDamaged."""
    uri = layout.alias_uri(registry, name, alias)
    latest = log.latest(uri)
    if latest is None:
        return None
    move = _move(uri, *latest)
    if not reading.is_deleted(registry, name, move.version):
        return move
    return _alive(registry, name, history(registry, name, alias))


def pointed_to(registry: str, name: str, number: int) -> list[str]:
    """The aliases whose latest entry names that version, deleted or not."""
    found = sorted({path.parts[0] for path, _ in layout.below(layout.aliases_uri(registry, name))})
    latest = ((alias, log.latest(layout.alias_uri(registry, name, alias))) for alias in found)
    return [alias for alias, entry in latest if entry and entry[1].get("version") == number]


def promote(
    registry: str,
    name: str,
    number: int,
    alias: str = PRODUCTION,
    why: str = "",
    by: str | None = None,
    expected: int | EllipsisType | None = ...,
) -> Move:
    """Let an alias mean that version from now on.

    expected  the version that it meant when this was decided, None for an alias that was not there: a move
              in between raises AliasMoved. Left out, a lost race is run again, and the last one rules.
    by        who decided; the user of this process if left out

    Raises AdapterNotFound and AdapterDamaged for a version that cannot be used.
    """
    version = reading.find(registry, name, number)
    uri = layout.alias_uri(registry, name, alias)
    free = log.free(uri)
    while True:
        if expected is not ...:
            free = log.free(uri)  # first: what is appended there comes right after what is read now
            _refuse_moved(registry, name, alias, expected)
        move = _append(uri, free, version, by, why)
        if move:
            return _kept(registry, name, alias, move)
        free += 1


def rollback(registry: str, name: str, alias: str = PRODUCTION, why: str = "", by: str | None = None) -> Move:
    """Let an alias mean what it meant before its current version; once more, the one before that.

    Raises RegistryError if there is nothing to go back to.
    """
    uri = layout.alias_uri(registry, name, alias)
    while True:
        moves = history(registry, name, alias)
        ruled = _ruled(registry, name, moves)
        if len(ruled) < 2:
            raise RegistryError(f"{name}@{alias} has no earlier version to go back to.")
        version = reading.find(registry, name, ruled[-2])
        move = _append(uri, moves[-1].number + 1, version, by, why, rollback=True)
        if move:
            return _kept(registry, name, alias, move)


def _append(uri: str, number: int, version: Version, by: str | None, why: str, rollback: bool = False) -> Move | None:
    """None if another writer had that number."""
    at = document.now().isoformat(timespec="milliseconds")
    move = Move(number, version.number, version.digest, by or document.me(), at, why, rollback)
    entry = {key: value for key, value in vars(move).items() if key != "number"}
    return move if log.append(uri, number, entry) else None


def _kept(registry: str, name: str, alias: str, move: Move) -> Move:
    """A deletion may have begun before the entry was written: it, or this, notices, for each writes, then looks."""
    if not reading.is_deleted(registry, name, move.version):
        return move
    before = _alive(
        registry, name, [earlier for earlier in history(registry, name, alias) if earlier.number < move.number]
    )
    back = before and reading.peek(registry, name, before.version)
    if back:
        uri = layout.alias_uri(registry, name, alias)
        _append(uri, move.number + 1, back, None, f"version {move.version} was being deleted", rollback=True)
    raise RegistryError(f"{name}@{move.version} was deleted while {alias} was moved to it; look and promote again.")


def _ruled(registry: str, name: str, moves: Iterable[Move]) -> list[int]:
    """The versions to go back through, the current one last: promotions push, rollbacks pop."""
    ruled: list[int] = []
    for move in moves:
        if move.rollback and move.version in ruled:
            while ruled[-1] != move.version:
                ruled.pop()
        elif not ruled or ruled[-1] != move.version:
            ruled.append(move.version)
    alive = [number for number in ruled if not reading.is_deleted(registry, name, number)]
    return [number for number, after in zip(alive, [*alive[1:], None], strict=True) if number != after]


def _alive(registry: str, name: str, moves: list[Move]) -> Move | None:
    return next((move for move in reversed(moves) if not reading.is_deleted(registry, name, move.version)), None)


def _move(uri: str, number: int, entry: dict[str, Any]) -> Move:
    known = {field.name: entry[field.name] for field in fields(Move) if field.name in entry}
    if not (isinstance(known.get("version"), int) and {"digest", "by", "at", "why"} <= known.keys()):
        raise AdapterDamaged(f"{log.entry_uri(uri, number)}: this is not what was written there.")
    return Move(**known | {"number": number})


def _refuse_moved(registry: str, name: str, alias: str, expected: int | EllipsisType | None) -> None:
    now = current(registry, name, alias)
    if (now and now.version) == expected:
        return
    was = "did not exist" if expected is None else f"was expected to be version {expected}"
    moved = f"{now.by} moved it to version {now.version} at {now.at}" if now else "there is no such alias"
    raise AliasMoved(f"{name}@{alias} {was}, but {moved}; look and promote again.")
