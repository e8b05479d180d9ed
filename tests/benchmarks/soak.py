"""Ten minutes of `edit-transfer serve` at saturation, with faults: is every request answered, does memory stay flat?

Twelve clients send good requests for eight adapters and inline pairs, bad images, unknown adapters, and now and then go
away in the middle. An alias moves every five seconds, and engines are killed.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
import requests

from infra import registry
from pipelines.transfer import bases
from tests.serving.adapters import picture, png, publish

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
CLIENTS, ADAPTERS, PICTURES = 12, 8, 32
PAIRS = 16  # inline ones, so that the cache of pairs is full after the first minute
KILLS = (0.2, 0.4)  # of the time
ENGINE = "ServeReplica:edit-transfer:engine"
PORT = "8123"


@dataclass
class Log:
    """What was sent, and what became of it: a status, `left` for a client that went away, `broken` for no answer."""

    sent: int = 0
    became: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self) -> None:
        with self.lock:
            self.sent += 1

    def note(self, fate: str) -> None:
        with self.lock:
            self.became[fate] += 1


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/registry"
        for number in range(ADAPTERS):
            for version in range(2):
                publish(place, f"shop-{number}", bases.BUNDLED, 2 * number + version)
        environment = os.environ | {
            "EDIT_TRANSFER_REGISTRY": place,
            "EDIT_TRANSFER_SERVING": f"{folder}/serving",
            "EDIT_TRANSFER_CACHE": f"{folder}/cache",
        }
        command = [sys.executable, "-c", "from infra.cli import main; main()", "serve", "--port", PORT]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
            try:
                _soak(f"http://localhost:{PORT}", place, psutil.Process(server.pid))
            finally:
                server.terminate()


def _soak(url: str, place: str, server: psutil.Process) -> None:
    while not _ready(url):
        time.sleep(0.5)
    log, ends = Log(), time.monotonic() + MINUTES * 60
    clients = [threading.Thread(target=_client, args=(url, log, ends, number)) for number in range(CLIENTS)]
    clients.append(threading.Thread(target=_promoter, args=(place, ends)))
    for client in clients:
        client.start()
    began, kills = time.monotonic(), [share * MINUTES * 60 for share in KILLS]
    print("| s | sent | engine MB | others MB |\n| ---: | ---: | ---: | ---: |", flush=True)
    while time.monotonic() < ends:
        passed = time.monotonic() - began
        if kills and passed > kills[0]:
            kills.pop(0)
            for engine in _engines(server):
                engine.kill()
            print(f"| {passed:.0f} | engine killed | | |", flush=True)
        engine, others = _memory(server)
        print(f"| {passed:.0f} | {log.sent} | {engine:.0f} | {others:.0f} |", flush=True)
        time.sleep(MINUTES * 60 / 30)
    for client in clients:
        client.join()
    answered = sum(log.became.values())
    print(f"\n{log.sent} sent, {answered} accounted for: {dict(log.became.most_common())}")
    print(f"left in the engines: {_inside(url)}")


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _client(url: str, log: Log, ends: float, number: int) -> None:
    draw, session = random.Random(number), requests.Session()
    files = [png(picture(seed, (64, 64))) for seed in range(PICTURES)]
    while time.monotonic() < ends:
        kind = draw.random()
        form: dict[str, str] = {"seed": str(draw.randrange(2**40)), "steps": str(draw.choice([1, 2, 5]))}
        sent = {"query": draw.choice(files)}
        if kind < 0.2:
            pair = draw.randrange(PAIRS)
            sent |= {"before": files[pair], "after": files[pair + 1]}
        else:
            form["adapter"] = f"shop-{draw.randrange(ADAPTERS)}@production" if kind < 0.9 else "nobody"
        if 0.85 < kind < 0.9:
            sent["query"] = sent["query"][:500]
        log.send()
        try:
            patience = 0.02 if kind > 0.97 else 120
            log.note(str(session.post(f"{url}/v1/transfers", files=sent, data=form, timeout=patience).status_code))
        except requests.ReadTimeout:
            log.note("left")
        except requests.RequestException:
            log.note("broken")


def _promoter(place: str, ends: float) -> None:
    turn = 0
    while time.monotonic() < ends:
        registry.promote(place, f"shop-{turn % ADAPTERS}", 1 + turn // ADAPTERS % 2)
        turn += 1
        time.sleep(5 if turn > ADAPTERS else 0)


def _engines(server: psutil.Process) -> list[psutil.Process]:
    return [each for each in server.children(recursive=True) if ENGINE in " ".join(_words(each))]


def _memory(server: psutil.Process) -> tuple[float, float]:
    """MB of the engines, and of all other replicas and proxies."""
    engine = others = 0.0
    for each in server.children(recursive=True):
        words = " ".join(_words(each))
        if "Serve" in words or "Proxy" in words:
            size = _resident(each) / 2**20
            engine, others = (engine + size, others) if ENGINE in words else (engine, others + size)
    return engine, others


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _inside(url: str) -> str:
    time.sleep(2)
    lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
    wanted = re.compile(r"edit_transfer_engine_(running|waiting)\b")
    return ", ".join(line for line in lines if wanted.match(line)) or "nothing told"
