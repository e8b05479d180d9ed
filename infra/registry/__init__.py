"""Adapters, published once and for ever: append-only objects in a store, with no server to run.

    publish, resolve, fetch, read_file          make a version, find one, use it
    mark                                        ask often whether a name still means what it meant
    promote, rollback, history, aliases         say which version a name means
    versions, names, delete, collect            look around, tidy up
    lease                                       be the only one at some work
    declare, withdraw, are_twins, twins         on which other base an adapter may be used

A version is sealed by its `adapter.json`, written last; an alias moves by writing the next number. Both are
written only where nothing is yet, so any number of processes may do so at once, on a folder or a bucket alike.
"""

from infra.registry.files import fetch, read_file
from infra.registry.garbage import Garbage, collect
from infra.registry.layout import PRODUCTION
from infra.registry.lease import Lease, lease
from infra.registry.moves import Move, aliases, history, promote, rollback
from infra.registry.publishing import publish
from infra.registry.reading import Version, names, versions
from infra.registry.removal import delete
from infra.registry.resolving import mark, resolve
from infra.registry.twins import BaseRef, Twin, are_twins, declare, twins, withdraw

__all__ = [
    "PRODUCTION",
    "BaseRef",
    "Garbage",
    "Lease",
    "Move",
    "Twin",
    "Version",
    "aliases",
    "are_twins",
    "collect",
    "declare",
    "delete",
    "fetch",
    "history",
    "lease",
    "mark",
    "names",
    "promote",
    "publish",
    "read_file",
    "resolve",
    "rollback",
    "twins",
    "versions",
    "withdraw",
]
