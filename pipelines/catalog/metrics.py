"""What a running job tells Prometheus, through Ray: images by status, seconds by stage, images that wait.

    edit_transfer_images_total{status}     done, skipped, failed
    edit_transfer_seconds_total{stage}     read, edit, wait (an edit actor without work), write
    edit_transfer_waiting_images{stage}    decoded and waiting for an edit; edited and waiting to be written

Ray exports them on the metrics port of every node (`ray_` goes before each name).
"""

from functools import cache

from ray.util.metrics import Counter, Gauge


@cache
def _images() -> Counter:
    return Counter("edit_transfer_images", "Images by what became of them.", ("status",))


@cache
def _seconds() -> Counter:
    return Counter("edit_transfer_seconds", "Time that the workers spent, by stage.", ("stage",))


@cache
def _waiting() -> Gauge:
    return Gauge("edit_transfer_waiting_images", "Images between two stages of the job.", ("stage",))


def count_images(status: str, number: int) -> None:
    """So many images more have this status."""
    if number:
        _images().inc(number, {"status": status})


def count_seconds(stage: str, seconds: float) -> None:
    """A worker has spent so many seconds more on this stage."""
    if seconds > 0:
        _seconds().inc(seconds, {"stage": stage})


def show_waiting(stage: str, images: int) -> None:
    """So many images wait for this stage now."""
    _waiting().set(images, {"stage": stage})
