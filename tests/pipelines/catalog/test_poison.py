"""Images that end the process that works on them, and memory that runs out."""

from dataclasses import replace

import pytest
import torch

from infra import settings
from infra.errors import UsageError
from pipelines.catalog import graph, job, manifest, stages
from pipelines.catalog.attempts import Attempts
from pipelines.catalog.bench import Bench
from pipelines.catalog.listing import Input
from pipelines.catalog.work import sha256
from pipelines.codec import Photo
from pipelines.tuning import Tuning
from tests.deadly import DEADLY, steps_with_a_deadly

IMAGES = 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory, scene):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        scene(number, (48, 48)).save(folder / f"{number}.png")
    scene(99, (48, 48)).save(folder / DEADLY)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["read", "edit", "write"])
def test_an_image_that_kills_its_worker_is_named_and_costs_the_others_nothing(
    ray_cluster, photos, pair, tiny_base, tmp_path, stage
):
    options = job.Options(pairs=[pair], input=str(photos), output=str(tmp_path), base=str(tiny_base), workers=1)
    prepared = job.prepare(options, settings.from_environment())
    work = job.job_of(prepared, options, settings.from_environment(), workers=1, job_id="test")
    counts = list(graph.run(work, steps=steps_with_a_deadly(stage)))
    rows = manifest.read(prepared.manifest).to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(rows) == IMAGES + 1 and sum(each.done for each in counts) == IMAGES
    assert [(row["relative_path"], row["error_code"]) for row in failed] == [(DEADLY, "crashed")]


def test_work_that_was_begun_and_never_ended_is_remembered():
    attempts = Attempts()
    assert [attempts.begin("edit", "a") for _ in range(3)] == [0, 1, 2]
    attempts.end("edit", "a")
    assert attempts.begin("edit", "a") == 0 == attempts.begin("read", "a")


@pytest.fixture
def bench(tiny_base, scene, monkeypatch) -> Bench:
    """A bench of which the memory takes no more than two images at a time."""
    from tests.pipelines.catalog.test_stages import bench_of

    made = bench_of(str(tiny_base), (scene(1), scene(2)))
    encode = made.editor.family.encode

    def encoded(images_B3HW: torch.Tensor) -> torch.Tensor:
        if len(images_B3HW) > 2 or images_B3HW.amax((1, 2, 3)).min() < -0.99:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot.")
        return encode(images_B3HW)

    monkeypatch.setattr(made.editor.family, "encode", encoded)
    return made


def test_a_batch_that_does_not_fit_is_done_in_smaller_ones_with_the_same_results(bench, scene):
    from tests.pipelines.catalog.test_stages import VARIANT

    queries = [scene(number, (64, 64)) for number in range(3, 9)]
    together = bench.edit(queries, VARIANT, range(6))
    assert bench.editor.batch_size == 2
    alone = [bench.edit([query], VARIANT, [seed])[0] for seed, query in enumerate(queries)]
    assert [result.tobytes() for result in together] == [result.tobytes() for result in alone]


def test_what_is_compiled_first_may_find_too_little_memory_as_well(bench, monkeypatch):
    monkeypatch.setattr(type(bench.editor), "one_by_one", False)  # as on a GPU
    bench.editor.tuned = Tuning(compile=True)
    bench._begin()
    assert bench.editor.batch_size == 2


def test_what_cannot_run_at_all_stops_the_job_in_a_sentence(bench, monkeypatch):
    bench.prefixes.clear()

    def broken(images_B3HW: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No viable backend.\nAnd much more")

    monkeypatch.setattr(bench.editor.family, "encode", broken)
    with pytest.raises(UsageError, match=r"cannot be run in this way: No viable backend\. Run it without"):
        bench._begin()


def test_other_pairs_make_room_for_those_that_do_not_fit(bench, scene, monkeypatch):
    from tests.pipelines.catalog.test_stages import VARIANT

    remember = bench.editor.remember

    def with_room_for_one(*arguments: object, **more: object) -> object:
        if bench.prefixes:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return remember(*arguments, **more)

    monkeypatch.setattr(bench.editor, "remember", with_room_for_one)
    other = replace(VARIANT, recipe=replace(VARIANT.recipe, seed=9))
    assert bench.edit([scene(3)], other, [0]) and list(bench.prefixes) == [other.recipe]


def test_after_a_shortage_the_larger_batch_is_tried_again(bench, scene):
    from tests.pipelines.catalog.test_stages import VARIANT

    bench.edit([scene(3, (64, 64))] * 4, VARIANT, range(4))
    assert bench.editor.batch_size == 2
    for _ in range(40):
        bench._grow(8)
    assert bench.editor.batch_size == bench.largest == 8


def test_one_image_that_does_not_fit_fails_and_its_neighbours_do_not(bench, scene):
    from PIL import Image

    from tests.pipelines.catalog.test_stages import VARIANT

    items = [
        stages.Item(Input(name, name, "e"), VARIANT, sha256(name.encode()), Photo(image, "PNG"))
        for name, image in (("good", scene(3)), ("huge", Image.new("RGB", (48, 32))), ("fine", scene(4)))
    ]
    done = {item.input.uri: item for item in stages.edit(items, bench)}
    assert done["huge"].error.code == "out_of_memory"
    assert done["good"].result and done["fine"].result
