"""Twins of bases: declared for a registry, one way only, listed and taken back."""

import pytest

from infra import registry as registries
from infra import store
from infra.errors import AdapterDamaged, RegistryError
from infra.registry import BaseRef, are_twins, declare, publish, twins, withdraw

TRAINED, QUICK, OTHER = (BaseRef(name, letter * 64) for name, letter in (("base", "a"), ("quick", "b"), ("other", "c")))


def test_a_twin_is_declared_one_way_listed_and_taken_back(registry):
    assert twins(registry) == [] and not are_twins(registry, TRAINED.revision, QUICK.revision)
    first, second = declare(registry, TRAINED, QUICK), declare(registry, TRAINED, OTHER)
    assert are_twins(registry, TRAINED.revision, QUICK.revision)
    assert not are_twins(registry, QUICK.revision, TRAINED.revision)
    assert not are_twins(registry, QUICK.revision, OTHER.revision)
    assert sorted(twins(registry), key=lambda each: each.deployed.revision) == [first, second]
    withdraw(registry, TRAINED.revision, QUICK.revision)
    assert twins(registry) == [second]
    with pytest.raises(RegistryError, match="no twin"):
        withdraw(registry, TRAINED.revision, QUICK.revision)


def test_declared_again_is_one_twin_under_its_newest_name(local):
    declare(local, TRAINED, QUICK)
    declare(local, TRAINED, BaseRef("renamed", QUICK.revision))
    assert [each.deployed.name for each in twins(local)] == ["renamed"]


def test_no_base_is_its_own_twin_and_no_revision_leads_anywhere(local):
    with pytest.raises(RegistryError, match="same base"):
        declare(local, TRAINED, BaseRef("copy", TRAINED.revision))
    with pytest.raises(RegistryError, match="revision"):
        declare(local, TRAINED, BaseRef("away", "../../b"))
    assert list(store.list_objects(local)) == []


def test_twins_are_no_adapter_and_no_garbage(local, files, about):
    publish(local, "a", files, about)
    declare(local, TRAINED, QUICK)
    assert registries.names(local) == ["a"] and registries.collect(local, dry_run=True) == []
    assert len(twins(local)) == 1


def test_a_broken_entry_is_named(local):
    declare(local, TRAINED, QUICK)
    [entry] = list(store.list_objects(local))
    store.write(entry.uri, b"{}")
    with pytest.raises(AdapterDamaged, match="_twins"):
        twins(local)
