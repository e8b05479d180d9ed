"""The endpoint's engine against a server that does one request after the other, on the bundled base."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

from infra import registry
from pipelines import adapters
from pipelines.adapters import Worn
from pipelines.catalog.variants import decoded_pair
from pipelines.transfer import Editor, bases
from serving.engine import Edited, Engine, Work
from tests.benchmarks.naive import NaiveEngine
from tests.serving.adapters import picture, png, publish

ADAPTERS, REQUESTS, FASTER = 8, 240, 2.0
REGISTERED, HOT = 1000, 50
PORT = 8765


class Server(Protocol):
    """What edits."""

    def submit(self, work: Work) -> Future[Edited]: ...


def mixed() -> None:
    """Poisson arrivals: the naive way at what it can just do, the engine at twice that rate."""
    with tempfile.TemporaryDirectory() as folder:
        worn = [Worn(publish(f"{folder}/registry", f"shop-{n}", bases.BUNDLED, n)) for n in range(ADAPTERS)]
        naive, engine = NaiveEngine(None, f"{folder}/cache"), Engine(None, f"{folder}/cache", max_batch=16)
        for steps in (2, 8, 28):
            works = _works(worn, steps)
            for server in (naive, engine):
                _closed(server, works[: 2 * ADAPTERS])
            capacity = _closed(naive, works[:60])
            print(f"{steps} steps; the naive way does {capacity:.1f} requests/s")
            for name, server, rate in (("naive", naive, 1.0), ("engine", engine, 1.0), ("engine", engine, FASTER)):
                done, waits = _open(server, works, rate * capacity)
                p50, p95 = np.percentile(waits, [50, 95])
                print(
                    f"  {name:6} offered {rate:.1f}x  done {done / capacity:.2f}x  p50 {p50 * capacity:5.1f}  "
                    f"p95 {p95 * capacity:5.1f}  (in times of one naive edit)"
                )
            print(f"  engine, all at once: {_closed(engine, works) / capacity:.2f}x")
        naive.stop()
        engine.stop()


def _works(worn: Sequence[Worn], steps: int) -> list[Work]:
    draw = random.Random(0)
    return [Work(query=picture(n), seed=n, worn=draw.choice(worn), steps=steps) for n in range(REQUESTS)]


def _closed(server: Server, works: Sequence[Work]) -> float:
    """Requests per second when all are there at once."""
    began = time.perf_counter()
    for future in [server.submit(work) for work in works]:
        future.result()
    return len(works) / (time.perf_counter() - began)


def _open(server: Server, works: Sequence[Work], rate: float) -> tuple[float, list[float]]:
    """Requests per second done, and the seconds each took, when they arrive at random moments at this rate."""
    draw, waits, all_done = random.Random(1), [], threading.Semaphore(0)
    began = due = time.perf_counter()
    for work in works:
        due += draw.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))

        def note(_: Future[Edited], sent: float = due) -> None:
            waits.append(time.perf_counter() - sent)
            all_done.release()

        server.submit(work).add_done_callback(note)
    for _ in works:
        all_done.acquire()
    return len(works) / (time.perf_counter() - began), waits


def again() -> None:
    """The same inline pair once more, and another one."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(None, folder)
        for pairs in (1, 4):
            first: list[float] = []
            second: list[float] = []
            for number in range(40):
                shown = tuple((f"{number} {pair}", str(pairs)) for pair in range(pairs))
                own = tuple((picture(number + pair), picture(number + pair + 1)) for pair in range(pairs))
                work = Work(query=picture(1), seed=1, pairs=own, shown=shown)
                for took in (first, second):
                    began = time.perf_counter()
                    engine.submit(work).result()
                    took.append(time.perf_counter() - began)
            print(f"{pairs} inline pairs: asked again, {np.median(second) / np.median(first):.2f} of the first time")
        engine.stop()


def overhead() -> None:
    """One request at a time over HTTP, in turn with a bare edit that has its pair remembered, and with Serve alone."""
    import requests
    import torch
    from ray import serve

    from infra import cluster
    from serving.app import Options, build
    from tests.benchmarks import echo

    torch.set_num_threads(1)
    # By default Ray's processes give way to all others (15): these would delay the endpoint, and not the bare edit.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    with tempfile.TemporaryDirectory() as folder, cluster.connected(2):
        version = publish(f"{folder}/registry", "shop", bases.BUNDLED, 1)
        options = Options(registry=f"{folder}/registry", cache=f"{folder}/cache", serving=f"{folder}/serving")
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        serve.run(build(options), name="overhead", route_prefix="/")
        worn = [Worn(version)]
        editor = Editor.load(adapter=adapters.loras(worn, Path(folder, "cache")))
        prefix = editor.remember([decoded_pair(file, 10**6) for file in adapters.exemplars(worn)])
        serve.run(echo.application(), name="echo", route_prefix="/echo")
        query, session = picture(1, (256, 256)), requests.Session()
        file = png(query)  # a client has the file already

        def post(route: str, **form: str) -> None:
            answer = session.post(f"http://localhost:{PORT}{route}", files={"query": file}, data=form)
            assert answer.status_code == 200, answer.text

        for steps in (2, 8, 28):
            works: dict[str, Callable[[], object]] = {
                "bare": partial(editor.edit, [query], prefix, seeds=[1], steps=steps),
                "asked": partial(post, "/v1/transfers", adapter="shop", steps=str(steps), seed="1"),
                "echo": partial(post, "/echo/"),
            }
            took = _in_turn(works, 25)
            print(
                f"{steps} steps: {took['asked'] / took['bare']:.2f} of the {took['bare'] * 1000:.0f} ms bare; an app"
                f" that only sends back what it was sent, through as many processes, would make it"
                f" {1 + took['echo'] / took['bare']:.2f}"
            )
        serve.shutdown()


def _in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each; the first round does not count."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            took[name].append(time.perf_counter() - began)
    return {name: float(np.median(each[1:])) for name, each in took.items()}


def registered() -> None:
    """A thousand adapters, fifty of them in use."""
    with tempfile.TemporaryDirectory() as folder:
        worn = [
            Worn(publish(f"{folder}/registry", f"shop-{n:04d}", bases.BUNDLED, n, targets=["to_q", "to_v"]))
            for n in range(REGISTERED)
        ]
        weights = Path(worn[0].version.uri, registry.layout.WEIGHTS).stat().st_size
        engine = Engine(None, f"{folder}/cache", adapters_mib=-(-60 * weights // 2**20), prefixes_mib=64)
        draw = random.Random(0)
        hot = draw.sample(worn, HOT)
        process = psutil.Process()
        for name, choice, count in (
            ("the 50 hot ones", hot, 500),
            ("all of them", worn, 1500),
            ("the hot ones", hot, 500),
        ):
            before = engine.state()["adapters_loaded"]
            works = [Work(query=picture(n), seed=n, worn=draw.choice(choice)) for n in range(count)]
            rate = _closed(engine, works)
            state = engine.state()
            print(
                f"{count} requests over {name}: {rate:.1f}/s, {state['adapters_loaded'] - before:.0f} adapters put on,"
                f" {state['adapters']} kept, {process.memory_info().rss / 2**20:.0f} MiB resident"
            )
        engine.stop()
