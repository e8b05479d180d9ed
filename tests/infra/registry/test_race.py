"""Sixteen processes publish and promote at once, while others read."""

import json
import subprocess
import sys

import pytest

from infra import registry as registries

WRITERS, READERS, STAGING = 16, 2, 6

WRITER = """
import json, sys
from infra import registry
from infra.errors import AliasMoved
where, me, each, stages = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
print("ready", flush=True)
sys.stdin.readline()
told = {"published": [], "promoted": [], "staged": []}
for turn in range(each):
    content = me.encode() * 500 if turn == 1 else b"the same in all processes"
    made = registry.publish(where, "a", {"adapter.safetensors": content, "card.md": b"card"}, {"rank": 8})
    told["published"].append([made.number, made.digest])
    move = registry.promote(where, "a", made.number, by=me, why=f"turn {turn}")
    told["promoted"].append([move.number, move.version])
while stages:
    before = registry.aliases(where, "a").get("staging")
    try:
        move = registry.promote(
            where, "a", made.number, "staging", f"after {before and before.version}", me, before and before.version
        )
        told["staged"].append([move.number, move.version])
        break
    except AliasMoved:
        pass
print(json.dumps(told), flush=True)
"""

READER = """
import select, sys
from infra import registry
from infra.errors import AdapterNotFound
where, seen, turns = sys.argv[1], 0, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    turns += 1
    try:
        version = registry.resolve(where, "a@production")
    except AdapterNotFound:
        assert seen == 0, "production was there, and is not"
        continue
    for path in version.files:
        registry.read_file(version, path)
    moves = registry.history(where, "a")
    assert [move.number for move in moves] == list(range(1, len(moves) + 1)), "a gap in the history"
    assert len(moves) >= seen, "an entry was there, and is not"
    assert all(registry.resolve(where, f"a@{move.version}").digest == move.digest for move in moves[seen:])
    seen = len(moves)
print(turns)
"""


def started(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize(("where", "each"), [("local", 3), ("ceph_bucket", 2)])
def test_nothing_is_lost_or_contradicted_when_all_write_at_once(request, where, each):
    registry = request.getfixturevalue(where)
    writers = [started(WRITER, registry, f"writer {me}", each, me < STAGING) for me in range(WRITERS)]
    readers = [started(READER, registry) for _ in range(READERS)]
    for process in (*writers, *readers):
        assert process.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = [json.loads(finished(writer)) for writer in writers]
    for reader in readers:
        reader.stdin.write("enough\n")
        reader.stdin.flush()
    assert all(int(finished(reader)) > 0 for reader in readers)

    versions = {version.number: version for version in registries.versions(registry, "a")}
    published = [tuple(each) for one in told for each in one["published"]]
    assert list(versions) == list(range(1, WRITERS * each + 1))
    assert sorted(published) == [(number, version.digest) for number, version in versions.items()]
    assert all(registries.read_file(version, path) for version in versions.values() for path in version.files)

    for alias, kind in (("production", "promoted"), ("staging", "staged")):
        moves = registries.history(registry, "a", alias)
        assert [[move.number, move.version] for move in moves] == sorted(each for one in told for each in one[kind])
        assert [move.number for move in moves] == list(range(1, len(moves) + 1))
        assert all(move.digest == versions[move.version].digest for move in moves)
        assert registries.resolve(registry, f"a@{alias}") == versions[moves[-1].version]
    staged = registries.history(registry, "a", "staging")
    before = [None, *(move.version for move in staged)]
    assert [move.why for move in staged] == [f"after {version}" for version in before[:-1]]
