"""What people see of a training before its first step, and what its score is said to be of."""

import io

import pytest
from rich.console import Console

from training.fit.publishing import scored_by
from training.fit.watch import Watch
from training.fit.worker import Preparing, Said


@pytest.fixture
def shown(tmp_path):
    """shown(said, **console): the lines that a console shows of that."""

    def show(said, **options):
        console = Console(file=io.StringIO(), width=120, **options)
        with Watch(tmp_path / "log", 100, True, console) as watch:
            for each in said:
                watch(each)
        *lines, _ = console.file.getvalue().splitlines()  # the last one is the bar as it ends
        return lines

    return show


def encoding(worker, done, found=0, total=1344):
    return Preparing(worker=worker, done=done, found=found, total=total)


BASE = Said(step=0, loss=float("nan"), samples_per_second=0.0, score={"balanced": 14.2, "copy": 11.0, "changed": 9.0})


def test_lines_tell_of_the_preparation_a_tenth_at_a_time(shown):
    said = [Preparing(worker=0), *(encoding(0, 32 * part) for part in range(1, 43)), BASE]
    first, second, *lines, last = shown(said)
    assert (first, second) == ("loading the base", "encoding 160 of 1,344 views") and "base alone" in last
    assert lines[-1] == "encoding 1,344 of 1,344 views" and len(lines) == 9


def test_workers_are_counted_together_and_one_that_is_lost_anew(shown):
    parts = [encoding(worker, done) for done in (336, 672) for worker in (0, 1)]
    said = [Preparing(worker=1), Preparing(worker=0), *parts[:3], Preparing(worker=0), Preparing(worker=1)]
    lines = shown([*said, *(encoding(worker, 672, found=336) for worker in (0, 1))])
    assert lines == [
        "loading the base",
        *(f"encoding {done} of 1,344 views" for done in ("336", "672", "1,008")),
        "loading the base",
        "encoding 672 of 1,344 views (336 kept from an earlier run)",
        "encoding 1,344 of 1,344 views (672 kept from an earlier run)",
    ]


def test_a_terminal_shows_the_preparation_as_it_goes(shown):
    terminal = "".join(shown([Preparing(worker=0), encoding(0, 504), encoding(0, 504)], force_terminal=True))
    assert "encoding 504 of 1,344 views" in terminal and "step 0 of 100" in terminal


@pytest.mark.parametrize(
    ("scores", "roles", "said"),
    [
        ({"held_out_pairs": 1, "scored_pairs": 1}, {"train": 5, "held_out": 1}, "1 held-out pair"),
        ({"held_out_pairs": 21, "scored_pairs": 8}, {"train": 105, "held_out": 21}, "8 of 21 held-out pairs"),
        ({"held_out_pairs": 21}, {"train": 105, "held_out": 21}, "8 of 21 held-out pairs"),
        ({"held_out_pairs": 7}, {"train": 35, "held_out": 7, "judged": 4}, "7 held-out pairs"),
        ({"held_out_pairs": 0, "scored_pairs": 3}, {"train": 3}, "3 pairs it was trained on"),
        ({"held_out_pairs": 0, "scored_pairs": 1}, {"train": 1}, "1 pair it was trained on"),
        ({"held_out_pairs": 0}, {"train": 9}, "8 of 9 pairs it was trained on"),
    ],
)
def test_a_score_is_said_to_be_of_the_pairs_that_were_judged(scores, roles, said):
    pairs = [{"role": role} for role, count in roles.items() for _ in range(count)]
    assert scored_by({"scores": scores, "pairs": pairs}) == said
