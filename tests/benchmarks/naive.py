"""The naive endpoint: one request at a time, adapters put on as they come. What the engine is measured against."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from infra.settings import from_environment
from pipelines import adapters
from pipelines.catalog.variants import decoded_pair
from pipelines.transfer import Editor, bases
from serving.engine.request import Description, Edited, Progress, Work


class NaiveEngine:
    """The interface of `serving.engine.Engine`, with nothing behind it but an Editor and a queue."""

    def __init__(self, base: str | None, cache: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.editor = Editor.load(base)
        self.cache = Path(cache)
        self.max_pixels = from_environment().max_pixels
        self.queue = ThreadPoolExecutor(1)

    def describe(self) -> Description:
        """What it runs."""
        editor = self.editor
        folder = bases.find_base(None if editor.base == "miniature" else editor.base)
        return Description(
            base=editor.base,
            revision=bases.revision_of(folder),
            attention=editor.attention,
            steps=editor.default_steps,
            max_area=editor.max_area,
            multiple=editor.family.multiple,
        )

    def submit(self, work: Work, tell: Callable[[Progress], None] | None = None) -> "Future[Edited]":
        """Edit this image when it is its turn."""
        return self.queue.submit(self._edit, work)

    def _edit(self, work: Work) -> Edited:
        worn = (work.worn,) if work.worn else ()
        self.editor.wear(adapters.loras(worn, self.cache))
        pairs = list(work.pairs) or [decoded_pair(file, self.max_pixels) for file in adapters.exemplars(worn)]
        prefix = self.editor.remember(pairs)
        [result] = self.editor.edit([work.query], prefix, seeds=[work.seed], steps=work.steps)
        return Edited(image=result, prefix_cached=False)

    def state(self) -> dict[str, float]:
        """Numbers for whoever looks after it."""
        return {"waiting": self.queue._work_queue.qsize()}

    def stop(self) -> None:
        """End after the request in hand."""
        self.queue.shutdown(cancel_futures=True)
