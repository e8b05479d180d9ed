"""No batch, no number of threads and no processor decides what an image becomes: only the machine's kind does."""

import threading

import pytest
import torch
from PIL import Image

from pipelines.transfer import Editor, bases
from pipelines.transfer.invariance import editing
from tests.rounding import SETTINGS, differences, run_under

QUICK = (1, 7, 15)  # tokens


def test_an_image_is_the_same_in_every_batch():
    assert list(differences(QUICK)) == []


def test_an_image_is_the_same_in_every_batch_under_kernels_that_treat_rows_unlike():
    """Without batch invariance dozens of passes differ."""
    assert run_under("mkl compatible", "tests.rounding", *map(str, QUICK)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_an_image_is_the_same_in_every_batch_whatever_the_instruction_set(setting):
    assert run_under(setting, "tests.rounding") == ""


@pytest.fixture
def pictures() -> list[Image.Image]:
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 255, (6, 48, 80, 3), generator=draw, dtype=torch.uint8)
    return [Image.fromarray(each.numpy()) for each in pixels]


def test_the_number_of_threads_changes_nothing_and_stays_as_it_was(pictures):
    editor, made, before = Editor.load(bases.BUNDLED), [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            prefix = editor.remember([(pictures[0], pictures[1])])
            made.append([image.tobytes() for image in editor.edit(pictures, prefix, seeds=range(6))])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1] == made[2]


def test_who_ends_first_leaves_the_others_their_one_thread():
    device, before, inside, ended = torch.device("cpu"), torch.get_num_threads(), threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with editing(device):
            inside.set()
            assert ended.wait(60)
            seen.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        thread = threading.Thread(target=other)
        with editing(device):
            thread.start()
            assert inside.wait(60)
        ended.set()
        thread.join()
        assert seen == [1]
    finally:
        torch.set_num_threads(before)


def test_the_numerics_name_machine_dtype_and_versions(tiny_base):
    told = Editor.load(tiny_base).numerics
    assert "float32" in told and f"torch {torch.__version__}" in told
    assert torch.backends.cpu.get_cpu_capability() in told
    assert Editor.load(tiny_base, dtype=torch.bfloat16).numerics == told.replace("float32", "bfloat16")
