from typer.main import get_command
from typer.testing import CliRunner

from infra.cli import app
from pipelines.catalog.cli import apply
from tests.interpreter import loaded_by

HEAVY = {"torch", "ray", "pyarrow", "PIL", "jinja2", "numpy", "diffusers", "boto3"}


def test_the_command_line_starts_without_anything_heavy():
    assert not HEAVY & loaded_by("import infra.cli")


def test_help_shows_every_command_and_the_version_is_told():
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0 and "apply" in shown.output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("edit-transfer ")


def test_every_option_of_apply_is_explained_and_in_a_group():
    for option in get_command(app).commands["apply"].params:
        assert option.help, option.name
        assert option.rich_help_panel or option.name == "help", option.name
    assert apply.__doc__


def test_an_expected_error_is_one_sentence_and_an_exit_code(tmp_path):
    told = CliRunner().invoke(app, ["apply", "--input", str(tmp_path), "--output", str(tmp_path / "out")])
    assert told.exit_code == 2 and told.stdout == ""
    assert told.stderr.startswith("Error: ") and "--pair" in told.stderr and "Traceback" not in told.stderr
