"""Who was at work on what when a process died: so that an image that kills its worker is found, and named.

Ray runs a task again when its process dies, for ever. Here is remembered what was begun and never ended. A batch that
somebody died of is done one image at a time, and an image that somebody died of alone, `DEATHS_ALONE` times, fails.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray

from pipelines.catalog import metrics

READ, EDIT, WRITE = "read", "edit", "write"
NEXT = {READ: EDIT, EDIT: WRITE}
DEATHS_ALONE = 2
Done = TypeVar("Done")


class Attempts:
    """The memory, an actor beside the driver. Keys name one piece of work at one stage.

    It sees all that passes from stage to stage, and so also how much waits between two of them.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()

    def begin(self, stage: str, key: str, images: int = 0) -> int:
        """Begin this work; how often it was begun before, and never ended. `images` do not wait for it any more."""
        self.begun[f"{stage} {key}"] += 1
        before = self.begun[f"{stage} {key}"] - 1
        if not before:
            self._wait(stage, -images)
        return before

    def end(self, stage: str, key: str, images: int = 0) -> None:
        """This work, and all that was begun of it before, is done; `images` wait for the next stage."""
        self.begun.pop(f"{stage} {key}", None)
        self._wait(NEXT.get(stage, ""), images)

    def _wait(self, stage: str, images: int) -> None:
        if stage in NEXT.values() and images:
            self.waiting[stage] = max(0, self.waiting[stage] + images)
            metrics.show_waiting(stage, self.waiting[stage])


class Guard:
    """What a worker sees of the attempts at one stage; without memory (its machine died) nothing is suspect."""

    def __init__(self, attempts: "ray.actor.ActorHandle | None", stage: str) -> None:
        self.attempts, self.stage = attempts, stage

    def done(
        self,
        keys: Sequence[str],
        together: Callable[[], list[Done]],
        alone: Callable[[int], list[Done]],
        deadly: Callable[[int], Done],
    ) -> list[Done]:
        """`together()`; after a death of it `alone(i)` for one after the other, and `deadly(i)` for those that kill.

        keys: one for each piece of the work, in the order that `i` counts in.
        """
        whole = f"{len(keys)} {keys[0]}"
        if not self._asked("begin", whole, len(keys)):
            found = together()
        else:
            found = []
            for index, key in enumerate(keys):
                if (self._asked("begin", f"alone {key}") or 0) >= DEATHS_ALONE:
                    found.append(deadly(index))
                else:
                    found.extend(alone(index))
                    self._asked("end", f"alone {key}")
        self._asked("end", whole, len(keys))
        return found

    def _asked(self, verb: str, key: str, images: int = 0) -> int | None:
        if self.attempts is not None:
            with suppress(ray.exceptions.RayError):
                return ray.get(getattr(self.attempts, verb).remote(self.stage, key, images))
        return None


def remembered() -> Any:
    """The memory of one job, in the cluster that is connected; it ends with the job."""
    return ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
