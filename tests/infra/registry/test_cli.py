import json
import subprocess
import sys
import time

import pytest
import typer.main
from typer.testing import CliRunner

from infra import registry as registries
from infra import store
from infra.cli import app
from infra.registry import promote, publish


def run(*arguments: object, code: int = 0, **options):
    done = CliRunner().invoke(app, ["adapters", *map(str, arguments)], **options)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def there(local, files, about, monkeypatch) -> str:
    """A registry with three versions, the second in production, where the environment says it is."""
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", local)
    monkeypatch.setenv("COLUMNS", "200")
    told = about | {
        "pairs": [{"name": "p", "role": "train"}, {"name": "q", "role": "held_out"}],
        "edits": ["arms [up]"],
    }
    for _ in range(3):
        publish(local, "lift-arms", files, told)
    promote(local, "lift-arms", 2, why="it is better")
    return local


def test_adapters_and_their_versions_are_listed(there):
    created = registries.resolve(there, "lift-arms@3").about["created_at"][:16].replace("T", " ")
    assert run("list").stdout.split()[:6] == ["name", "newest", "production", "base", "score", "created"]
    assert " ".join(run("list").stdout.splitlines()[1].split()) == f"lift-arms 3 2 bundled 0.5 {created}"
    rows = json.loads(run("list", "lift-arms", "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in rows] == [(3, []), (2, ["production"]), (1, [])]
    assert (
        json.loads(run("list", "--json").stdout)[0].items() >= {"name": "lift-arms", "newest": 3, "score": 0.5}.items()
    )


def test_an_empty_registry_and_an_unknown_name_are_told(tmp_path):
    assert "No adapters in" in run("list", "--registry", tmp_path).stdout
    assert run("list", "--registry", tmp_path, "--json").stdout == "[]\n"
    assert "There is no adapter a in" in run("list", "a", "--registry", tmp_path, code=2).stderr


def test_a_version_is_shown_with_its_card(there):
    shown = run("show", "lift-arms").stdout
    for text in ("lift-arms@2 = production", "bundled", "arms [up]", "2: p, q (held out)", "recovered 0.5", "Card"):
        assert text in shown
    told = json.loads(run("show", "lift-arms@3", "--json").stdout)
    assert told["version"] == 3 and told["aliases"] == [] and told["card"] == "# Card\n"


def test_an_alias_is_moved_taken_back_and_accounted_for(there):
    assert run("promote", "lift-arms@3", "--why", "best").stdout == "lift-arms@production is now version 3.\n"
    assert run("rollback", "lift-arms").stdout == "lift-arms@production is version 2 again.\n"
    assert json.loads(run("promote", "lift-arms@1", "--to", "staging", "--json").stdout)["version"] == 1
    moves = json.loads(run("history", "lift-arms", "--json").stdout)
    assert [(move["version"], move["why"], move["rollback"]) for move in moves] == [
        (2, "it is better", False),
        (3, "best", False),
        (2, "", True),
    ]
    shown = run("history", "lift-arms").stdout.splitlines()
    assert shown[1].startswith("now") and shown[1].rstrip().endswith("rollback") and "best" in shown[2]
    assert "never promoted" in run("history", "lift-arms", "--alias", "nothing").stdout


def test_a_version_is_deleted_by_its_number_and_only_when_that_is_meant(there):
    assert "lift-arms@NUMBER" in run("delete", "lift-arms", code=2).stderr
    run("delete", "lift-arms@1", code=1, input="n\n")
    assert "production" in run("delete", "lift-arms@2", "--yes", code=2).stderr
    assert run("delete", "lift-arms@1", input="y\n").stdout.endswith("lift-arms@1 is deleted.\n")
    assert [version.number for version in registries.versions(there, "lift-arms")] == [2, 3]


def test_garbage_is_shown_and_then_removed(there):
    store.write(f"{there}/lift-arms/versions/000004/claim.json", b'{"at": "2020-01-01T00:00:00+00:00"}')
    store.write(f"{there}/lift-arms/versions/000004/card.md", b"half")
    assert run("gc", "--dry-run").stdout.endswith("1 objects, 4 B would be removed.\n")
    assert [each["why"] for each in json.loads(run("gc", "lift-arms", "--json").stdout)] == ["never finished"]
    assert run("gc").stdout == "0 objects, 0 B removed.\n"


def test_a_version_is_exported_and_nothing_is_written_over_unasked(there, tmp_path, files):
    run("export", "lift-arms", tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files} == files
    assert "--force" in run("export", "lift-arms", tmp_path / "out", code=2).stderr
    run("export", "lift-arms@3", tmp_path / "out", "--force")
    told = json.loads(run("export", "lift-arms@1", tmp_path / "one.safetensors", "--json").stdout)
    assert told["files"] == [str(tmp_path / "one.safetensors")]
    assert (tmp_path / "one.safetensors").read_bytes() == files["adapter.safetensors"]


def test_a_damaged_version_is_listed_as_such_and_not_used(there):
    store.write(f"{there}/lift-arms/versions/000003/adapter.json", b"{}")
    assert json.loads(run("list", "--json").stdout)[0]["base"] == "damaged"
    assert json.loads(run("list", "lift-arms", "--json").stdout)[0]["base"] == "damaged"
    assert "is not the lift-arms@3 that was published" in run("show", "lift-arms@3", code=2).stderr


UNREACHABLE = {"endpoint": "http://127.0.0.1:9", "bucket": None}


@pytest.mark.parametrize("what", UNREACHABLE)
def test_a_registry_that_cannot_be_reached_is_one_sentence_within_seconds(what, ceph, monkeypatch):
    for key, value in ceph.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", UNREACHABLE[what] or ceph["AWS_ENDPOINT_URL"])
    command = [
        sys.executable,
        "-c",
        "from infra.cli import main; main()",
        "adapters",
        "list",
        "--registry",
        "s3://none/r",
    ]
    began = time.monotonic()
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2 and told.stdout == "" and time.monotonic() - began < 20
    assert told.stderr.startswith("Error: s3://none/r: ") and told.stderr.count("\n") == 1


def test_every_command_and_option_is_explained_and_takes_a_registry_and_gives_json():
    commands = typer.main.get_command(app).commands["adapters"].commands
    for name in ("list", "show", "promote", "rollback", "history", "delete", "gc", "export"):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {"--registry", "--json"} <= options and commands[name].help
        assert all(parameter.help for parameter in commands[name].params), name
