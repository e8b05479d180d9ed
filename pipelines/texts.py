"""Which text goes with an edit, and where it is: what was asked for, else the adapter's, else the base's, else none.

Texts are files of prompt embeddings, as `edit-transfer embed` writes them; heavy imports wait until one is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra import store
from infra.errors import UsageError
from infra.registry.layout import PROMPT
from pipelines.adapters import Worn

if TYPE_CHECKING:
    from pipelines.transfer.family import Prompt

OF_BASE = "base:"  # for an address: the file in the base's own folder, wherever a machine has that


@dataclass(frozen=True)
class Text:
    """A file of prompt embeddings: its address, and the sha256 of what it holds."""

    uri: str
    sha256: str


@dataclass(frozen=True)
class Texts:
    """What was asked for and what the base brings, None where there is nothing."""

    asked: Text | None = None
    base: Text | None = None

    def of(self, worn: Sequence[Worn]) -> Text | None:
        """The text of an edit with these adapters. Raises UsageError if they bring different ones."""
        if self.asked:
            return self.asked
        own = {each.prompt: each for each in worn if each.prompt}
        if len(own) > 1:
            names = " and ".join(each.version.ref for each in own.values())
            raise UsageError(f"{names} each bring a text of their own. Say with --prompt which one it shall be.")
        return next((of_adapter(each) for each in own.values()), self.base)


def texts_for(asked: str | None, folder: Path) -> Texts:
    """What is known of a job: the file that was asked for, and that in the folder of the base.

    Raises:
        UsageError: one of them has no prompt embeddings, or not those of this base.
        StoreError: the file cannot be read.
    """
    return Texts(asked=_checked(asked, store.read(asked), folder) if asked else None, base=of_base(folder))


def checked(uri: str, base: str | Path | None) -> Text:
    """A file of prompt embeddings for a base. Raises UsageError, StoreError."""
    from pipelines.transfer import bases

    return _checked(uri, store.read(uri), bases.find_base(base))


def of_base(folder: Path) -> Text | None:
    """The text that a base brings. Raises UsageError for a file without prompt embeddings for it."""
    from pipelines.transfer import bases

    path = bases.prompt_file(folder)
    return Text(OF_BASE, _checked(str(path), path.read_bytes(), folder).sha256) if path else None


def of_adapter(worn: Worn) -> Text | None:
    """The text that an adapter brings."""
    return Text(store.join(worn.version.uri, PROMPT), worn.prompt) if worn.prompt else None


def checked_file(path: Path, folder: Path) -> bytes:
    """A file of prompt embeddings for the base in a folder. Raises UsageError, StoreError."""
    data = store.read(str(path))
    _checked(str(path), data, folder)
    return data


def usual(worn: Sequence[Worn], base: str | Path | None) -> Prompt | None:
    """The embeddings that these adapters are used with on a base where nothing else is asked for. Raises as `read`."""
    from pipelines.transfer import bases

    return read(Texts(base=of_base(bases.find_base(base))).of(worn), base)


def read(text: Text | None, base: str | Path | None) -> Prompt | None:
    """The embeddings of a text, None for none.

    Raises:
        UsageError: it has changed since it was chosen, or holds no prompt embeddings.
        StoreError: it cannot be read.
    """
    from pipelines.transfer import bases, prompts

    if text is None:
        return None
    own = bases.prompt_file(bases.find_base(base)) if text.uri == OF_BASE else None
    place = str(own) if own else text.uri
    data = store.read(place)
    if hashlib.sha256(data).hexdigest() != text.sha256:
        raise UsageError(f"{place}: these prompt embeddings are not those that this edit was begun with. Run it again.")
    return prompts.parsed(data, place)


def _checked(uri: str, data: bytes, folder: Path) -> Text:
    from pipelines.transfer import bases, prompts

    prompts.check_width(prompts.parsed(data, uri), bases.text_widths(folder), uri)
    return Text(uri, hashlib.sha256(data).hexdigest())
