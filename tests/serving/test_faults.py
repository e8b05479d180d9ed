"""Clients that go away, replicas that die, a registry that is gone: nobody else notices."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import requests

from tests.serving.conftest import MINUTES_OF_STEPS


def engine_numbers(endpoint) -> dict[str, float]:
    lines = requests.get(f"{endpoint.url}/metrics").text.splitlines()
    told = (line.rpartition(" ") for line in lines if line.startswith("edit_transfer_engine_"))
    return {name.partition("{")[0].removeprefix("edit_transfer_engine_"): float(value) for name, _, value in told}


def busy(endpoint) -> float:
    numbers = engine_numbers(endpoint)
    return numbers["running"] + numbers["waiting"]


def endless_request(endpoint, png) -> bytes:
    """A form, byte by byte, for an edit that takes longer than the tests may."""
    form = requests.Request(
        "POST",
        f"{endpoint.url}/v1/transfers",
        files={"query": png(5)},
        data={"adapter": "invert", "steps": MINUTES_OF_STEPS},
    ).prepare()
    head = "".join(f"{name}: {value}\r\n" for name, value in form.headers.items())
    return f"POST /v1/transfers HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + form.body


def test_a_client_that_goes_away_frees_its_place(endpoint, png):
    assert busy(endpoint) == 0
    with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
        connection.sendall(endless_request(endpoint, png))
        while busy(endpoint) == 0:
            pass
    while busy(endpoint):
        pass


def test_a_stream_that_is_not_read_any_more_frees_its_place(endpoint, png):
    form = {"adapter": "invert", "steps": str(MINUTES_OF_STEPS), "stream": "true"}
    with requests.post(f"{endpoint.url}/v1/transfers", files={"query": png(5)}, data=form, stream=True) as answer:
        lines = answer.iter_lines()  # kept: when it goes, requests closes the connection
        assert next(lines) == b"event: progress"
        assert busy(endpoint) == 1
    while busy(endpoint):
        pass


def test_time_that_is_up_is_a_504(endpoint, png):
    form = {"adapter": "invert", "steps": str(MINUTES_OF_STEPS), "timeout": "0.5"}
    answer = requests.post(f"{endpoint.url}/v1/transfers", files={"query": png(5)}, data=form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_passed")
    while busy(endpoint):
        pass


def test_a_killed_replica_costs_nobody_an_answer(endpoint, png):
    def edit(number: int) -> requests.Response:
        return requests.post(
            f"{endpoint.url}/v1/transfers",
            files={"query": png(number)},
            data={"adapter": "invert", "steps": "60", "seed": "1"},
        )

    expected = edit(0).content
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(edit, 0) for _ in range(4)]
        while busy(endpoint) == 0:
            pass
        engine_process().send_signal(signal.SIGKILL)
        answers = [each.result() for each in waiting]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(answer.content == expected for answer in answers if answer.ok)
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)
    assert edit(0).content == expected


def engine_process() -> psutil.Process:
    """The replica with the engine."""
    children = psutil.Process().children(recursive=True)
    [found] = [each for each in children if "ServeReplica:endpoint:engine" in " ".join(each.cmdline())]
    return found


def test_a_registry_that_is_gone_is_served_from_memory(endpoint, png):
    def edit(adapter: str) -> requests.Response:
        return requests.post(f"{endpoint.url}/v1/transfers", files={"query": png(5)}, data={"adapter": adapter})

    assert edit("invert").ok
    here, away = Path(endpoint.registry), Path(f"{endpoint.registry}.away")
    here.rename(away)
    try:
        assert edit("invert").ok
        assert edit("never-seen").status_code == 503
        ready = requests.get(f"{endpoint.url}/readyz").json()
        assert ready["ready"] and ready["registry"] != "answers"
        assert endpoint.registry not in edit("never-seen").text
    finally:
        away.rename(here)
    while requests.get(f"{endpoint.url}/readyz").json()["registry"] != "answers":
        pass
    assert edit("other").ok
