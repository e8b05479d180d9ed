"""From a ref to one immutable version."""

from infra.errors import AdapterDamaged, AdapterNotFound
from infra.registry import layout, log, moves, reading
from infra.registry.moves import Move
from infra.registry.reading import Version


def resolve(registry: str, ref: str) -> Version:
    """What `name`, `name@3` or `name@production` means now; a bare name is production, or else the newest.

    Raises AdapterNotFound, AdapterDamaged if what is stored is not what was published or promoted, and
    RegistryError for a ref that cannot be one.
    """
    name, number, alias = layout.parsed(ref)
    if number is not None:
        return reading.find(registry, name, number)
    while move := moves.current(registry, name, alias or layout.PRODUCTION):
        try:
            return _promoted(registry, name, alias or layout.PRODUCTION, move)
        except AdapterNotFound:
            if not reading.is_deleted(registry, name, move.version):
                raise
    if alias:
        raise _no_alias(registry, name, alias)
    newest = reading.newest(registry, name)
    if newest is None:
        raise reading.not_found(registry, name)
    return newest


def mark(registry: str, ref: str) -> tuple[int, ...]:
    """Changes whenever `ref` is promoted or rolled back, or, a bare name without production, published: one listing,
    for those who ask often whether `resolve` would still give what it gave. Deletions do not show in it.

    Raises RegistryError for a ref that cannot be one.
    """
    name, number, alias = layout.parsed(ref)
    if number is not None:
        return ()
    moved = log.numbers(layout.alias_uri(registry, name, alias or layout.PRODUCTION))
    return tuple(moved[-1:]) if moved or alias else tuple(reading.numbers(registry, name))


def _promoted(registry: str, name: str, alias: str, move: Move) -> Version:
    version = reading.find(registry, name, move.version)
    if version.digest != move.digest:
        raise AdapterDamaged(f"{version.uri}: this is not the {version.ref} that {move.by} promoted to {alias}.")
    return version


def _no_alias(registry: str, name: str, alias: str) -> AdapterNotFound:
    if not reading.numbers(registry, name):
        return reading.not_found(registry, name)
    there = ", ".join(moves.aliases(registry, name)) or "none yet"
    return AdapterNotFound(f"{name} has no alias {alias} in {registry}; its aliases: {there}.")
