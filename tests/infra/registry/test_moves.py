import subprocess
import sys

import pytest

from infra import registry as registries
from infra import store
from infra.errors import AdapterInUse, AdapterNotFound, AliasMoved, RegistryError
from infra.registry import aliases, delete, history, mark, promote, publish, resolve, rollback


@pytest.fixture
def four(registry, files, about):
    """A registry with four versions of one adapter."""
    for _ in range(4):
        publish(registry, "a", files, about)
    return registry


def test_an_alias_keeps_who_moved_it_where_when_and_why(four):
    promote(four, "a", 2, why="better", by="ann")
    promote(four, "a", 3, "staging", by="ben")
    move = promote(four, "a", 1)
    moves = history(four, "a")
    assert (moves[0].number, moves[0].version, moves[0].by, moves[0].why) == (1, 2, "ann", "better")
    assert moves[-1] == move and move.digest == resolve(four, "a@1").digest
    assert {alias: move.version for alias, move in aliases(four, "a").items()} == {"production": 1, "staging": 3}
    assert resolve(four, "a@staging").number == 3


def test_a_mark_changes_with_what_a_ref_means(four, files, about):
    bare = [mark(four, "a")]
    publish(four, "a", files, about)
    bare.append(mark(four, "a"))
    promote(four, "a", 1, "staging")
    assert mark(four, "a") == bare[-1] and mark(four, "a@3") == mark(four, "a@3")
    for move in (lambda: promote(four, "a", 1), lambda: promote(four, "a", 2), lambda: rollback(four, "a")):
        move()
        bare.append(mark(four, "a"))
        assert mark(four, "a@production") == bare[-1]
    assert len(set(bare)) == len(bare)


def test_two_rollbacks_in_a_row_go_two_versions_back(four):
    for number in (1, 2, 3):
        promote(four, "a", number)
    assert [rollback(four, "a").version for _ in range(2)] == [2, 1]
    with pytest.raises(RegistryError, match="no earlier version"):
        rollback(four, "a")
    promote(four, "a", 4)
    assert rollback(four, "a").version == 1
    assert [move.version for move in history(four, "a")] == [1, 2, 3, 2, 1, 4, 1]


def test_a_version_promoted_twice_is_gone_back_from_in_one_step(four):
    for number in (1, 2, 2):
        promote(four, "a", number)
    assert rollback(four, "a").version == 1


def test_a_rollback_passes_over_deleted_versions(four):
    for number in (1, 2, 3):
        promote(four, "a", number)
    delete(four, "a", 2)
    assert rollback(four, "a").version == 1


def test_a_decision_about_an_alias_that_has_moved_is_not_carried_out(four):
    promote(four, "a", 1, expected=None, by="ann")
    for stale in (None, 2):
        with pytest.raises(AliasMoved, match=r"ann moved it to version 1 at .*look and promote again"):
            promote(four, "a", 3, expected=stale)
    assert promote(four, "a", 3, expected=1).number == 2


PROMOTER = """
import sys
from infra import registry
from infra.errors import AliasMoved
sys.stdin.readline()
try:
    registry.promote(sys.argv[1], "a", int(sys.argv[2]), expected=1)
    print("won")
except AliasMoved:
    print("lost")
"""


@pytest.mark.parametrize("where", ["local", "ceph_bucket"])
def test_of_racing_promotions_that_expect_the_same_exactly_one_wins(request, where, files, about):
    registry = request.getfixturevalue(where)
    for _ in range(5):
        publish(registry, "a", files, about)
    promote(registry, "a", 1)
    commands = [[sys.executable, "-c", PROMOTER, registry, str(number)] for number in (2, 3, 4, 5)]
    promoters = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for command in commands]
    for promoter in promoters:
        promoter.stdin.write("go\n")
        promoter.stdin.flush()
    told = [promoter.communicate()[0].strip() for promoter in promoters]
    assert sorted(told) == ["lost", "lost", "lost", "won"]
    assert [move.version for move in history(registry, "a")] == [1, 2 + told.index("won")]


@pytest.mark.parametrize("alias", ["7", "Production", "a/b", ""])
def test_what_could_be_a_version_or_a_path_is_no_alias(local, files, about, alias):
    publish(local, "a", files, about)
    with pytest.raises(RegistryError, match="cannot be an alias"):
        promote(local, "a", 1, alias)


def test_only_what_is_there_can_be_promoted(four):
    with pytest.raises(AdapterNotFound):
        promote(four, "a", 5)
    assert history(four, "a") == []


def test_a_version_is_deleted_only_while_no_alias_points_to_it_and_its_number_stays_taken(four, files, about):
    promote(four, "a", 3, "staging")
    with pytest.raises(AdapterInUse, match="a@3 is what staging of a means"):
        delete(four, "a", 3)
    promote(four, "a", 2, "staging")
    delete(four, "a", 3)
    delete(four, "a", 4)
    assert sorted(found.uri.rsplit("/", 1)[1] for found in store.list_objects(f"{four}/a/versions/000004")) == [
        "claim.json",
        "deleted.json",
    ]
    for use in (delete, promote, lambda *ref: resolve(four, "a@4")):
        with pytest.raises(AdapterNotFound, match="a@4 was deleted"):
            use(four, "a", 4)
    assert resolve(four, "a").number == 2
    assert publish(four, "a", files, about).number == 5


def test_a_promotion_that_finds_a_tombstone_takes_itself_back(local, files, about, monkeypatch):
    """The deletion is let in between a promotion's first look and its entry, by a store that does so."""
    for _ in range(2):
        publish(local, "a", files, about)
    promote(local, "a", 1)
    write = store.local.LocalStore.write_if_absent

    def after_a_deletion(self, uri, data):
        if uri.endswith("production/000002.json"):
            delete(local, "a", 2)
        return write(self, uri, data)

    monkeypatch.setattr(store.local.LocalStore, "write_if_absent", after_a_deletion)
    with pytest.raises(RegistryError, match="a@2 was deleted while production was moved to it"):
        promote(local, "a", 2)
    assert [move.version for move in history(local, "a")] == [1, 2, 1]
    assert resolve(local, "a").number == 1


def test_a_deletion_that_finds_a_promotion_takes_itself_back(local, files, about, monkeypatch):
    publish(local, "a", files, about)
    write = store.local.LocalStore.write_if_absent

    def after_a_promotion(self, uri, data):
        if uri.endswith("deleted.json"):
            promote(local, "a", 1)
        return write(self, uri, data)

    monkeypatch.setattr(store.local.LocalStore, "write_if_absent", after_a_promotion)
    with pytest.raises(AdapterInUse, match="production"):
        delete(local, "a", 1)
    assert registries.resolve(local, "a").number == 1
    assert registries.read_file(resolve(local, "a"), "card.md") == files["card.md"]
