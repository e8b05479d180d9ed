"""What a table says, row by row, and what is said where it cannot be read."""

from pathlib import Path

import pytest

from infra.errors import CatalogError
from pipelines.catalog.listing import Input, Own, list_catalog

TWO = {"a.jpg": Own(seed="7"), "b.jpg": Own()}


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """A file of that name and content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def inputs_of(path: Path) -> list[Input]:
    return list(list_catalog(str(path), str(path.parent / "out")))


def told(path: Path) -> dict[str, Own]:
    """What each row asks for that can be used, by the name of its image."""
    return {found.relative_path: found.own for found in inputs_of(path) if found.error is None}


def refusal(path: Path) -> str:
    """What is said of a table that cannot be read, in one sentence or two that begin with its name."""
    with pytest.raises(CatalogError) as refused:
        inputs_of(path)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")
