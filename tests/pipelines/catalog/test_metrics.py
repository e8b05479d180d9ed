"""What Prometheus sees of a job: scraped from the port that Ray opens on a node."""

import re
import time
import urllib.request
from collections.abc import Callable

from infra import settings
from pipelines.catalog import attempts, graph, job


def scraped() -> dict[str, float]:
    """Our metrics as the node exports them, summed over its processes."""
    import ray

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^ray_(edit_transfer_\w+){(.*?)} (\S+)$", text, re.M):
        label = re.search(r'(?:status|stage)="(\w+)"', labels)
        key = f"{name} {label[1] if label else ''}"
        found[key] = found.get(key, 0) + float(value)
    return found


def wait_until(true: Callable[[], bool]) -> None:
    """Ray hands metrics on every few seconds."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, scraped()
        time.sleep(0.5)


def test_prometheus_sees_images_by_status_seconds_by_stage_and_queues(ray_cluster, scene, pair, tiny_base, tmp_path):
    for number in range(6):
        (tmp_path / "photos").mkdir(exist_ok=True)
        scene(number, (48, 48)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "empty.png").touch()
    options = job.Options(
        pairs=[pair], input=str(tmp_path / "photos"), output=str(tmp_path / "out"), base=str(tiny_base), workers=1
    )
    environment = settings.from_environment()
    before = scraped()
    for _ in graph.run(job.job_of(job.prepare(options, environment), options, environment, workers=1, job_id="test")):
        pass
    expected = {"edit_transfer_images_total done": 6, "edit_transfer_images_total failed": 1}
    wait_until(lambda: {key: scraped().get(key, 0) - before.get(key, 0) for key in expected} == expected)
    assert all(scraped()[f"edit_transfer_seconds_total {stage}"] > 0 for stage in ("read", "edit", "write"))


def test_prometheus_sees_how_many_images_wait_for_a_stage(ray_cluster):
    memory = attempts.remembered()
    reading, editing = (attempts.Guard(memory, stage) for stage in (attempts.READ, attempts.EDIT))
    for guard, names in ((reading, "abcde"), (editing, "ab")):
        guard.done(list(names), together=list, alone=lambda index: [], deadly=lambda index: None)
    waiting = {"edit_transfer_waiting_images edit": 3, "edit_transfer_waiting_images write": 2}
    wait_until(lambda: waiting.items() <= scraped().items())
