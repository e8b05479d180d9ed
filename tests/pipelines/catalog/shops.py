"""An output folder such as jobs leave, with a staged job in it."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from infra import store
from pipelines.catalog import manifest, moving, publication
from pipelines.catalog.work import sha256

START = datetime(2026, 1, 1, tzinfo=UTC)
STAGED = "staged-0123456789ab"
SAYING = [name for name in manifest.SCHEMA.names if name != "finished_at"]


class Shop:
    """An output folder with results of earlier jobs, and a staged job in it. Inputs are called as their results."""

    def __init__(self, place: str) -> None:
        self.place, self.job = place, store.join(place, "jobs", STAGED)

    def edit(self, folder: str, job_id: str, results: dict[str, str | None], at: int, uri: str = "in/{}") -> None:
        """Results of a job, None for a failure, as `apply` leaves them."""
        rows = []
        for name, content in results.items():
            row = {"uri": uri.format(name), "relative_path": name, "job_id": job_id, "input_etag": f"etag of {name}"}
            row |= {"work_id": sha256(f"{job_id} {name}".encode()), "finished_at": START + timedelta(seconds=at)}
            if content is None:
                rows.append(row | {"status": "failed", "error_code": "truncated"})
                continue
            result = store.join(folder, "images", name)
            store.write(result, content.encode())
            done = {"status": "done", "result_uri": result, "result_sha256": sha256(content.encode())}
            rows.append(row | done | {"scores": {"change": 0.5}, "seconds": 1.5})
        manifest.append(store.join(folder, "manifest"), rows)

    @property
    def images(self) -> dict[str, str]:
        """What lies in the output folder."""
        root = store.join(self.place, "images", "")
        return {
            found.uri.removeprefix(root): store.read(found.uri).decode()
            for found in store.list_objects(root.rstrip("/"))
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the manifest of the output folder says, but for when."""
        return manifest.read(store.join(self.place, "manifest"), SAYING).to_pylist()

    @property
    def state(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        return self.images, self.rows

    def publish(self, partial: bool = False) -> moving.Published:
        return moving.publish(publication.find(self.job), quiet(), partial)

    def revert(self) -> moving.Reverted:
        return moving.revert(publication.find(self.job), quiet())


def quiet() -> Console:
    return Console(file=io.StringIO())


NEW = {"a.jpg": "a2", "b.jpg": "b2", "c/c.png": "c2", "d.jpg": "d2", "e.jpg": "e2"}


def stocked(place: str) -> Shop:
    """a was edited before; b failed; c lies there without a row; d is new; e's place is owned by another input; f fails
    now; g stays out of it."""
    shop = Shop(place)
    shop.edit(place, "first", {"a.jpg": "a1", "b.jpg": None, "f.jpg": "f1", "g.jpg": "g1"}, at=1)
    shop.edit(place, "other", {"e.jpg": "e1"}, at=2, uri="elsewhere/{}")
    store.write(store.join(place, "images", "c/c.png"), b"c1")
    shop.edit(shop.job, "staged", NEW | {"f.jpg": None}, at=3)
    return shop
