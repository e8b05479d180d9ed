"""What an engine keeps for later requests: adapters inside the transformer, and the prefixes of pairs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pipelines.transfer import Editor, Lora
    from pipelines.transfer.mixture import Mixture

Kept = TypeVar("Kept")


class Shelf(Generic[Kept]):
    """The things used last, as many as `room` bytes hold; always at least one.

    Args:
        let_go: called with what has to make room.
    """

    def __init__(self, room: int, let_go: Callable[[Kept], None] | None = None) -> None:
        self.room = room
        self.nbytes = 0
        self.hits = self.misses = 0
        self._let_go = let_go
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> Kept | None:
        """What is kept under this key, which counts as used now."""
        if key not in self._kept:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, thing: Kept, nbytes: int, in_use: Collection[Hashable] = ()) -> None:
        """Keep a thing of so many bytes; what is in use does not make room for it."""
        self._kept[key] = (thing, nbytes)
        self.nbytes += nbytes
        for other in [each for each in self._kept if each != key and each not in in_use]:
            if self.nbytes <= self.room:
                return
            self.drop(other)

    def drop(self, key: Hashable) -> None:
        """Keep it no longer."""
        thing, nbytes = self._kept.pop(key)
        self.nbytes -= nbytes
        if self._let_go:
            self._let_go(thing)


class Wardrobe:
    """Adapters inside the transformer, each under a name of its own; those used last stay."""

    def __init__(self, editor: Editor, mixture: Mixture, room: int) -> None:
        self._transformer, self._mixture = editor.family.transformer, mixture
        self._names = (f"worn{number}" for number in count())
        self.shelf: Shelf[str] = Shelf(room, self._transformer.delete_adapters)

    def name(self, key: Hashable, lora: Lora, in_use: Collection[Hashable]) -> str:
        """The name under which the transformer has this adapter, which is put into it if it is not there yet.

        Raises AdapterNotFound if it does not fit the base, or its file is gone.
        """
        from pipelines.transfer import adapters

        if name := self.shelf.get(key):
            return name
        name = next(self._names)
        adapters.hang(self._transformer, lora, name)
        self._mixture.refresh()
        self.shelf.put(key, name, lora.path.stat().st_size, in_use)
        return name
