"""The benchmarks, which the tests do not run, can at least be imported and asked what they measure."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from tests.benchmarks import gpu
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


@pytest.mark.slow
def test_the_gpu_benchmark_measures_small_models_on_a_cpu_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    out = tmp_path / "gpu.json"
    small = ["--size", "tiny", "--device", "cpu", "--out", str(out), "--commit", "abc123"]

    def broken(models, case):
        raise RuntimeError("out of memory | somewhere")

    monkeypatch.setitem(gpu.WAYS, "stock", broken)
    gpu.main([*small, "--rows", "paper*plain", "stock*plain"])
    first = json.loads(out.read_text())["rows"]
    assert [row.get("error") for row in first.values()] == [None, "RuntimeError: out of memory | somewhere"]
    monkeypatch.undo()
    gpu.main([*small, "--rows", "paper*plain", "klein prefix b4*plain", "stock*plain", "kv*plain", "klein train-ours*"])
    told = json.loads(out.read_text())
    names = list(told["rows"])
    assert all(told["rows"][name] == row for name, row in first.items())
    gpu.main([*small, "--rows", "stock*plain", "--retry"])
    told = json.loads(out.read_text())
    assert not [name for name, row in told["rows"].items() if "error" in row]

    size = gpu.SIZES["tiny"]
    columns = {case: gpu.derived(case, told) for case in gpu.cases(size) if case.name in names}
    for case, column in columns.items():
        expected = {"encode ms", "decode ms", "x of (a)", "x of (a), same options"} - set(case.trains * gpu.COLUMNS)
        expected |= {"step ms", "s/image", "peak GiB", "TFLOP/image", "step % of peak", "image % of peak"}
        assert not [name for name in expected if not column[name]], case.name
    paper, ours = (next(case for case in columns if case.way == way) for way in ("paper", "prefix"))
    seconds = [told["rows"][case.name]["image_s"] for case in (paper, ours)]
    assert columns[ours]["x of (a)"] == pytest.approx(seconds[0] / seconds[1])
    table = out.with_suffix(".md").read_text()
    assert "commit abc123" in table and table.count("| 64 |") == len(columns)


def test_the_gpu_benchmark_counts_full_size_without_a_gpu(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--device", "meta", "--out", str(out), "--rows", "512 d klein*b1 plain", "512 e*plain"])
    flops = {name: parts["image"] for name, parts in json.loads(out.read_text())["flops"].items()}
    # klein's blocks hold some 3.5e9 parameters; 1,024 tokens of the query pass once, result and text at four steps
    least = 2 * 3.5e9 * (1024 + 4 * (1024 + 512))
    assert least < flops["512 d klein prefix b1 plain"] < 1.5 * least
    assert flops["512 e klein stock b1 plain"] > 2 * flops["512 d klein prefix b1 plain"]


def test_the_gpu_benchmark_says_what_it_cannot_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA GPU"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit, match="No row is like"):
        gpu.main(["--rows", "no-such-row", "--out", str(tmp_path / "gpu.json")])
    (tmp_path / "gpu.json").write_text('{"size": "tiny"}')
    with pytest.raises(SystemExit, match="holds results of size tiny"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])
