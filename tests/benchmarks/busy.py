"""Beside a process that keeps a core busy: how much longer do evaluation, training, a job and the endpoint take?"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests

from tests.serving.adapters import picture, png
from training.demo import write_demo

COMMAND = [sys.executable, "-c", "from infra.cli import main; main()"]
ROUNDS, REQUESTS = 2, 40
MOST = 2.5
PORT = "8124"


def run() -> None:
    print(f"best of {ROUNDS}, alone and beside a process that never sleeps, in turn; at most {MOST}x is the target\n")
    print("| | alone s | beside s | times |\n| --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_demo(folder / "demo")
        for name, work in WORKS.items():
            _compare(name, partial(work, folder))
        with _endpoint(folder) as url:
            _compare("endpoint", partial(_requests, url))


def _compare(name: str, work: Callable[[], None]) -> None:
    best = {False: float("inf"), True: float("inf")}
    for _ in range(ROUNDS):
        for beside in best:
            with _busy() if beside else _quiet():
                began = time.perf_counter()
                work()
                best[beside] = min(best[beside], time.perf_counter() - began)
    print(f"| {name} | {best[False]:.1f} | {best[True]:.1f} | {best[True] / best[False]:.2f} |", flush=True)


@contextmanager
def _busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _quiet() -> Iterator[None]:
    yield


def _done(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"EDIT_TRANSFER_REGISTRY": str(folder / "registry")}
    subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, check=True)


def _evaluate(folder: Path) -> None:
    _done(folder, "evaluate", "--cases", "8", "--json")


def _train(folder: Path, *more: str) -> None:
    name = f"busy-{time.monotonic_ns()}"
    _done(folder, "train", "--name", name, "--pairs", str(folder / "demo/pairs/red-left"), "--steps", "20", *more)


def _one_worker(folder: Path) -> None:
    _train(folder, "--workers", "1")


def _job(folder: Path) -> None:
    pair = [str(folder / f"demo/pairs/background_{side}.png") for side in ("before", "after")]
    output = folder / f"out-{time.monotonic_ns()}"
    _done(folder, "apply", "--pair", *pair, "--input", str(folder / "demo/products"), "--output", str(output))


WORKS: dict[str, Callable[[Path], None]] = {
    "evaluate": _evaluate,
    "train": _train,
    "train, one worker": _one_worker,
    "job": _job,
}


@contextmanager
def _endpoint(folder: Path) -> Iterator[str]:
    environment = os.environ | {"EDIT_TRANSFER_SERVING": str(folder / "serving")}
    url = f"http://localhost:{PORT}"
    with subprocess.Popen([*COMMAND, "serve", "--port", PORT], env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            while not _ready(url):
                time.sleep(0.5)
            yield url
        finally:
            server.terminate()


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


def _requests(url: str) -> None:
    for number in range(REQUESTS):
        files = {name: (name, png(picture(seed))) for name, seed in (("before", 1), ("after", 2), ("query", number))}
        requests.post(f"{url}/v1/transfers", files=files, timeout=120).raise_for_status()
