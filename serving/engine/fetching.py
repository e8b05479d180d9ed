"""What a request needs from the registry: brought to this machine once, checked, and decoded."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from infra.errors import ImageError, PairError
from pipelines import adapters, texts
from pipelines.catalog.variants import decoded_pair
from serving.engine.caches import Shelf
from serving.engine.request import Work

if TYPE_CHECKING:
    from pipelines.transfer import Lora, Pair
    from pipelines.transfer.family import Prompt
    from pipelines.transfer.layout import Attention

ROOM = 256 * 2**20  # bytes of decoded exemplars


@dataclass(frozen=True)
class Fetched:
    """What a request is edited with. `key` stands for all of it: adapter and pairs.

    `prompt` is the text that the adapter brings, None where that of the base is used; `compact` by how much the sides
    of its pairs have fewer tokens.
    """

    key: Hashable
    lora: "Lora | None"
    pairs: "tuple[Pair, ...]"
    attention: "Attention | None"
    prompt: "Prompt | None" = None
    compact: int = 1


class Fetcher:
    """Copies of adapters in a folder of this machine, and their exemplars, decoded, in memory.

    Args:
        fit: brings an image to its working size.
    """

    def __init__(self, cache: Path, max_pixels: int, fit: Callable[[Image.Image], Image.Image]) -> None:
        self._cache, self._max_pixels, self._fit = cache, max_pixels, fit
        self._lock = threading.Lock()
        self._adapters: Shelf[Fetched] = Shelf(ROOM)

    def known(self, work: Work) -> Fetched | None:
        """What the request needs, if no store has to be asked for it."""
        if work.worn is None:
            return Fetched(("", work.shown), None, work.pairs, None)
        with self._lock:
            fetched = self._adapters.get(work.worn.digest)
        if fetched is None or (fetched.lora and not fetched.lora.path.is_file()):  # caches may be emptied at any time
            return None
        return _with_pairs(fetched, work)

    def fetch(self, work: Work) -> Fetched:
        """The same, brought here. Raises AdapterDamaged, StoreError, PairError."""
        assert work.worn
        [lora] = adapters.loras([work.worn], self._cache)
        files = adapters.exemplars([work.worn])
        pairs = tuple(self._fitted(decoded_pair(file, self._max_pixels), file[0]) for file in files)
        text = texts.of_adapter(work.worn)
        prompt = texts.read(text, None) if text else None
        fetched = Fetched((work.worn.digest, ()), lora, pairs, work.worn.attention, prompt, work.worn.compact)
        size = sum(image.width * image.height * 3 for pair in pairs for image in pair)
        size += prompt.nbytes if prompt else 0
        with self._lock:
            if work.worn.digest in self._adapters:
                self._adapters.drop(work.worn.digest)
            self._adapters.put(work.worn.digest, fetched, size + 1)
        return _with_pairs(fetched, work)

    def _fitted(self, pair: "Pair", name: str) -> "Pair":
        try:
            return self._fit(pair[0]), self._fit(pair[1])
        except ImageError as error:
            raise PairError(f"{name}: an image of this pair cannot be used: {error}") from None


def _with_pairs(fetched: Fetched, work: Work) -> Fetched:
    if not work.pairs:
        return fetched
    assert work.worn
    return replace(fetched, key=(work.worn.digest, work.shown), pairs=work.pairs)
