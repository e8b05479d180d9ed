"""Whoever has had the least is next, and nobody saves up a claim."""

from collections import Counter

import pytest

from serving.engine.fairness import FairQueue


def taken(queue: FairQueue, count: int) -> list:
    return [queue.pop() for _ in range(count)]


def test_first_come_first_served_on_one_path():
    queue = FairQueue()
    for number in range(5):
        queue.put(number, ("shop", "lift"), 1)
    assert len(queue) == 5 and taken(queue, 5) == [0, 1, 2, 3, 4] and len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop()


def test_a_flood_does_not_keep_others_waiting():
    queue = FairQueue()
    for _ in range(1000):
        queue.put("flood", ("loud", "lift"), 1)
    queue.put("single", ("quiet", "lift"), 1)
    assert "single" in taken(queue, 2)


def test_tenants_share_alike_and_so_do_the_adapters_of_each():
    queue = FairQueue()
    for path in [("a", 1), ("a", 2), ("a", 3), ("b", 1)]:
        for _ in range(60):
            queue.put(path, path, 1)
    counts = Counter(taken(queue, 60))
    assert counts["b", 1] == 30 and {counts["a", adapter] for adapter in (1, 2, 3)} == {10}


def test_what_counts_is_what_it_costs():
    queue = FairQueue()
    for _ in range(100):
        queue.put("large", ("a", ""), 4)
        queue.put("small", ("b", ""), 1)
    counts = Counter(taken(queue, 50))
    assert counts["small"] == 4 * counts["large"]


def test_who_was_away_has_no_claim_to_what_others_had_meanwhile():
    queue = FairQueue()
    for _ in range(100):
        queue.put("a", ("a", ""), 1)
    taken(queue, 80)
    for _ in range(100):
        queue.put("b", ("b", ""), 1)
    assert Counter(taken(queue, 20))["a"] >= 9


def test_coming_one_at_a_time_is_no_way_to_get_more():
    queue = FairQueue()
    for _ in range(100):
        queue.put("a", ("a", ""), 1)
    served = []
    for _ in range(40):
        if served[-1:] != ["b"]:
            queue.put("b", ("b", ""), 3)
        served.append(queue.pop())
    counts = Counter(served)
    assert counts["a"] >= 2.5 * counts["b"]


def test_those_whom_nobody_wants_are_taken_out_and_nothing_stays_behind():
    queue = FairQueue()
    for number in range(100):
        queue.put(number, (number, "lift"), 1)
    assert sorted(queue.discard(lambda number: number % 2 == 0)) == list(range(0, 100, 2))
    assert sorted(taken(queue, len(queue))) == list(range(1, 100, 2))
    for number in range(1000):
        queue.put(number, (f"tenant {number}", "lift"), 1)
        queue.pop()
    assert len(queue._had) <= 2 and not queue._below
