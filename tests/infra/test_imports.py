"""Imports point one way: infra <- pipelines <- training, serving."""

import ast
from pathlib import Path

import pytest

from tests.interpreter import loaded_by

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "infra": set(),
    "pipelines": {"infra"},
    "training": {"infra", "pipelines"},
    "serving": {"infra", "pipelines"},
}


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} & MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package):
    for path in (ROOT / package).rglob("*.py"):
        assert imported_packages(path) <= MAY_IMPORT[package] | {package}, path


def test_the_editor_knows_neither_ray_nor_boto3():
    assert not {"ray", "boto3"} & loaded_by("import pipelines.transfer")


def test_only_the_store_speaks_to_an_sdk():
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            assert "import boto3" not in path.read_text() or path.parent.name == "store", path
