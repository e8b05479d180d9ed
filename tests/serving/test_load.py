"""Many at once over HTTP: every result is that of `Editor.edit`, and a promotion costs nobody an answer."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
import requests
import torch
from PIL import Image

from infra import registry
from pipelines import adapters
from pipelines.adapters import Worn
from pipelines.catalog.variants import decoded_pair
from pipelines.transfer import Editor
from tests.serving.adapters import picture, png, publish

CLIENTS = 8


def edited(endpoint, number: int, **form: object) -> requests.Response:
    return requests.post(f"{endpoint.url}/v1/transfers", files={"query": png(picture(number))}, data=form)


@pytest.mark.slow
def test_results_under_mixed_load_are_those_of_the_editor(endpoint, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = [f"load-{number}" for number in range(8)]
    for number, name in enumerate(names):
        publish(endpoint.registry, name, endpoint.base, 100 + number, rank=4 + number % 4)
    draw = Random(0)
    asked = [(n, draw.choice(names), draw.randrange(2**63), draw.choice([1, 2, 5])) for n in range(200)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda a: edited(endpoint, a[0], adapter=a[1], seed=a[2], steps=a[3]), asked))
    assert {answer.status_code for answer in answers} == {200}
    editor = Editor.load(endpoint.base)
    for name in names:
        worn = [Worn(registry.resolve(endpoint.registry, name))]
        editor.wear(adapters.loras(worn, Path(tmp_path)))
        prefix = editor.remember([decoded_pair(file, 10**6) for file in adapters.exemplars(worn)])
        for (number, used, seed, steps), answer in zip(asked, answers, strict=True):
            if used == name:
                [expected] = editor.edit([picture(number)], prefix, seeds=[seed], steps=steps)
                assert Image.open(io.BytesIO(answer.content)).tobytes() == expected.tobytes()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("way", ["promote", "rollback"])
def test_a_promotion_under_load_fails_nobody_and_counts_at_once(endpoint, way):
    name = f"moving-{way}"
    first, second = (publish(endpoint.registry, name, endpoint.base, seed) for seed in (201, 202))
    registry.promote(endpoint.registry, name, 1)
    old, new = first.digest, second.digest
    if way == "rollback":
        registry.promote(endpoint.registry, name, 2)
        old, new = new, old
    moved, arrived = threading.Event(), threading.Semaphore(0)

    def client(number: int) -> list[tuple[bool, int, str | None]]:
        """Asks until five of its requests were sent after the move: whether they were, their status and digest."""
        answers: list[tuple[bool, int, str | None]] = []
        while sum(after for after, *_ in answers) < 5:
            after = moved.is_set()
            answer = edited(endpoint, number, adapter=f"{name}@production", steps=2)
            answers.append((after, answer.status_code, answer.headers.get("X-Edit-Transfer-Digest")))
            arrived.release()
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        for _ in range(3 * CLIENTS):
            arrived.acquire()
        if way == "promote":
            registry.promote(endpoint.registry, name, 2)
        else:
            registry.rollback(endpoint.registry, name)
        moved.set()
        answers = [answer for each in clients for answer in each.result()]
    assert {status for _, status, _ in answers} == {200}
    assert {digest for after, _, digest in answers if after} == {new}
    assert {digest for after, _, digest in answers if not after} >= {old}
