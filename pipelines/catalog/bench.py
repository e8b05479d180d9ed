"""One worker's Editor, with the edits it has prepared and as many images at a time as its memory can take."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from infra.errors import EditTransferError, ImageError, PairError, UsageError
from infra.settings import keep_compiled
from pipelines import adapters, texts
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant
from pipelines.faults import leave_if_broken, out_of_memory
from pipelines.restore import Draft
from pipelines.tuning import PLAIN, Tuning

if TYPE_CHECKING:
    from pipelines.transfer import Prefix

T = TypeVar("T")

PREFIXES_KEPT = 8  # edits whose pairs stay remembered
USUAL_BATCH, LARGEST_BATCH = 8, 64
ROOM = 0.45  # of the GPU's memory: a batch that took no more may be doubled
BATCHES_TO_RECOVER = 32  # after which a batch that was too large is tried again


class Bench:
    """An Editor that does the edits of a job, one after the other.

    Args:
        base: as Editor.load takes it.
        cache: folder on this machine that keeps the weights of adapters.
        batch_size: images that go through the model together at most; None begins with eight, and goes up to
            `LARGEST_BATCH` on a GPU that has the memory.
        tuned: how the base is run.

    Raises BaseNotFound, AdapterNotFound, AdapterDamaged, PairError, StoreError and UsageError for the job's own edit.
    """

    def __init__(
        self, base: str | None, edits: Edits, cache: str, batch_size: int | None, tuned: Tuning = PLAIN
    ) -> None:
        import torch

        from pipelines.transfer import Editor

        self.edits, self.cache, self.base = edits, Path(cache), base
        usual = edits.usual
        loras = adapters.loras(usual.worn, self.cache)
        prompt = texts.read(usual.text, base)
        if tuned.compile:
            keep_compiled(cache)
        self.editor: Editor = Editor.load(
            base,
            adapter=loras,
            attention=usual.recipe.attention,
            batch_size=batch_size or USUAL_BATCH,
            prompt_embeds=prompt,
            tuned=tuned,
        )
        self.largest = batch_size or (LARGEST_BATCH if torch.cuda.is_available() else USUAL_BATCH)
        self.since_shrunk = BATCHES_TO_RECOVER
        self.worn, self.prompt = usual.recipe.adapter, usual.recipe.prompt
        self.prefixes: OrderedDict[Recipe, Prefix] = OrderedDict()
        self._begin()

    def _begin(self) -> None:
        """Run the pairs, and what is compiled once, before the first batch comes. What cannot run at all stops the job.

        Raises PairError, StoreError, and UsageError where the base cannot be run in the way that was asked for.
        """
        try:
            prefix = self._remembered(self.edits.usual)
            if self.editor.tuned.compile:
                side, size = isqrt(self.editor.max_area), self.editor.batch_size
                grey = [Image.new("RGB", (side, side), "grey")] * size
                self._as_memory_allows(lambda: self.editor.edit(grey, prefix, seeds=[0] * size, steps=1))
        except EditTransferError:
            raise
        except Exception as error:
            leave_if_broken(error)
            raise UsageError(_told(error)) from error

    def edit(
        self, queries: Sequence[Image.Image], variant: Variant, seeds: Sequence[int]
    ) -> Sequence[Image.Image | Draft]:
        """Edit RGB images this way, one seed each. A batch that does not fit into memory is done in smaller ones.

        Results have the sizes of their queries, or are drafts where they are to be restored to full resolution.

        Raises ImageError for what one query is, and what `Editor.edit` raises.
        """
        prefix = self._remembered(variant)
        edit = self.editor.draft if variant.recipe.restore else self.editor.edit
        results = self._as_memory_allows(lambda: edit(queries, prefix, seeds=seeds, steps=variant.recipe.steps))
        self._grow(len(queries))
        return results

    @property
    def numerics(self) -> str:
        """What decides how its results are rounded (`Editor.numerics`)."""
        return self.editor.numerics

    def _as_memory_allows(self, work: Callable[[], T]) -> T:
        """What comes of this; where a batch does not fit into memory it is done again in smaller ones."""
        while True:
            try:
                return work()
            except Exception as error:
                leave_if_broken(error)
                if not out_of_memory(error) or self.editor.batch_size == 1:
                    raise
                self._shrink()

    def _remembered(self, variant: Variant) -> "Prefix":
        """The editor, made ready for this edit; pairs that were remembered under an adapter are good with it only."""
        recipe = variant.recipe
        if recipe.adapter != self.worn:
            self.worn = "nothing"  # should this fail
            self.editor.wear(adapters.loras(variant.worn, self.cache))
            self.worn = recipe.adapter
        if recipe.prompt != self.prompt:
            self.editor.say(texts.read(variant.text, self.base))
            self.prompt = recipe.prompt
        if recipe not in self.prefixes:
            self.prefixes[recipe] = self._run_pairs(variant)
            if len(self.prefixes) > PREFIXES_KEPT:
                self.prefixes.popitem(last=False)
        self.prefixes.move_to_end(recipe)
        return self.prefixes[recipe]

    def _run_pairs(self, variant: Variant) -> "Prefix":
        pairs = self.edits.shown(variant)
        try:
            return self.editor.remember(pairs, compact=variant.recipe.compact)
        except ImageError as error:
            raise PairError(f"This pair cannot be used: {error}") from None
        except Exception as error:
            if not self.prefixes or not out_of_memory(error):
                raise
        self.prefixes.clear()  # those of other rows
        _empty_cache()
        return self.editor.remember(pairs, compact=variant.recipe.compact)

    def _shrink(self) -> None:
        self.editor.batch_size = max(1, self.editor.batch_size // 2)
        self.since_shrunk = 0
        _empty_cache()

    def _grow(self, queries: int) -> None:
        """Double the batch where there is room: on a GPU that is measured, and after a shortage tried now and then."""
        import torch

        self.since_shrunk += 1
        size = self.editor.batch_size
        if size >= self.largest or queries < size:
            return
        if torch.cuda.is_available():
            taken, whole = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
            torch.cuda.reset_peak_memory_stats()
            roomy = taken < ROOM * whole
        else:
            roomy = True
        if roomy and self.since_shrunk >= BATCHES_TO_RECOVER:
            self.editor.batch_size = min(self.largest, 2 * size)
            self.since_shrunk = BATCHES_TO_RECOVER


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _told(error: Exception) -> str:
    if out_of_memory(error):
        return "The base and its pairs do not fit into memory. `edit-transfer apply --plan` tells what does."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return f"The base cannot be run in this way: {reason}. Run it without the options of memory and speed."
