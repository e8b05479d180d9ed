"""Keys in a folder and in a bucket, and the command that makes them."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.errors import UsageError
from serving.access import keys


def test_only_a_hash_of_a_key_is_stored(serving):
    key, token = keys.create(serving, "shop", ["jobs", "transfer"], rate=60)
    assert token.startswith(f"et_{key.key_id}_")
    secret = token.removeprefix(f"et_{key.key_id}_")
    stored = b"".join(store.read(each.uri) for each in store.list_objects(serving))
    assert secret.encode() not in stored and hashlib.sha256(secret.encode()).hexdigest().encode() in stored
    assert secret not in repr(key) and key.signing_secret not in repr(key)
    assert keys.listed(serving) == [key]
    assert (key.scopes, key.rate, key.concurrency) == (("transfer", "jobs"), 60, None)


def test_secrets_have_256_bits_and_are_never_the_same(local):
    made = [keys.create(local, "shop", ["transfer"]) for _ in range(3)]
    assert len({token for _, token in made}) == len({key.signing_secret for key, _ in made}) == 3
    assert all(len(keys.parsed(token)[1]) * 6 >= 256 for _, token in made)
    assert keys.SECRET_BYTES * 8 >= 256


def test_what_is_kept_on_a_disk_is_for_its_owner_alone(local):
    keys.create(local, "shop", ["transfer"])
    assert Path(local, "keys").stat().st_mode & 0o077 == 0


def test_names_scopes_and_ids_are_checked(local):
    for name, scopes in (("Shop", ["jobs"]), ("../x", ["jobs"]), ("", ["jobs"]), ("shop", []), ("shop", ["root"])):
        with pytest.raises(UsageError):
            keys.create(local, name, scopes)
    for key_id in ("../../x", "0" * 16):
        with pytest.raises(UsageError):
            keys.revoke(local, key_id)
    assert not keys.directory(local)


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(app, ["keys", *arguments])
    assert done.exit_code == code, done.output
    return done


def test_keys_are_created_listed_and_revoked_on_the_command_line(serving, monkeypatch):
    monkeypatch.setenv("EDIT_TRANSFER_SERVING", serving)
    assert "No keys in" in run("list").stdout and run("list", "--json").stdout == "[]\n"
    asked = ["--name", "shop", "--scope", "jobs", "--scope", "transfer", "--rate", "60", "--concurrency", "4"]
    made = json.loads(run("create", *asked, "--json").stdout)
    told = run("create", "--name", "other", "--scope", "admin").stdout
    assert made["key"] not in told and told.count("et_") == 1 and told.count("whsec_") == 1
    assert made["scopes"] == ["transfer", "jobs"] and made["signing_secret"].startswith("whsec_")

    listed = run("list").stdout
    assert f"{made['key_id']}  shop: transfer, jobs, 60 a minute, 4 at a time; since " in listed
    assert "revoked" in run("revoke", made["key_id"]).stdout
    listed, shown = json.loads(run("list", "--json").stdout), run("list").stdout
    assert [bool(key["revoked_at"]) for key in listed] == [True, False] and "; revoked " in shown
    for text in (json.dumps(listed), shown):
        assert not any(secret in text for secret in ("et_", "whsec_", "sha256"))
    assert run("revoke", "0" * 16, code=2).stderr.startswith("Error: There is no key")
    assert run("create", "--name", "shop", "--scope", "root", code=2).stdout == ""
