"""The benchmarks, which the tests do not run, can at least be imported and asked what they measure."""

from importlib import import_module
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import BENCHMARKS, main

MODULES = sorted(path.stem for path in Path(__file__).with_name("benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_imports(name):
    import_module(f"tests.benchmarks.{name}")


def test_help_names_them_all_and_what_is_none_is_refused(capsys):
    with pytest.raises(SystemExit) as told:
        main(["--help"])
    said = capsys.readouterr().out
    assert told.value.code == 0 and all(name in said for name in BENCHMARKS)
    with pytest.raises(SystemExit) as told:
        main(["job", "no-such-one"])
    assert told.value.code == 2 and "no benchmark no-such-one" in capsys.readouterr().err
