"""One worker's Editor, with the edits it has prepared and as many images at a time as its memory can take."""

from collections import OrderedDict
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from infra.errors import ImageError, PairError
from infra.settings import keep_compiled
from pipelines import adapters, texts
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant
from pipelines.faults import leave_if_broken, out_of_memory
from pipelines.restore import Draft
from pipelines.tuning import PLAIN, Tuning

if TYPE_CHECKING:
    from pipelines.transfer import Prefix

PREFIXES_KEPT = 8  # edits whose pairs stay remembered
LARGEST_BATCH = 64
ROOM = 0.45  # of the GPU's memory: a batch that took no more may be doubled
BATCHES_TO_RECOVER = 32  # after which a batch that was too large is tried again


class Bench:
    """An Editor that does the edits of a job, one after the other.

    On a CPU it computes with one thread, always: the number of threads decides the last bit of a sum, and so,
    now and then, a pixel.

    Args:
        base: as Editor.load takes it.
        cache: folder on this machine that keeps the weights of adapters.
        batch_size: images that go through the model together at most; None begins with eight, and goes up to
            `LARGEST_BATCH` on a GPU that has the memory.
        tuned: how the base is run.

    Raises BaseNotFound, AdapterNotFound, AdapterDamaged, PairError and StoreError for the job's own edit.
    """

    def __init__(
        self, base: str | None, edits: Edits, cache: str, batch_size: int | None, tuned: Tuning = PLAIN
    ) -> None:
        import torch

        from pipelines.transfer import Editor

        torch.set_num_threads(1)
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
            batch_size=batch_size or 8,
            prompt_embeds=prompt,
            tuned=tuned,
        )
        self.largest = batch_size or (LARGEST_BATCH if torch.cuda.is_available() else 8)
        self.since_shrunk = BATCHES_TO_RECOVER
        self.worn, self.prompt = usual.recipe.adapter, usual.recipe.prompt
        self.prefixes: OrderedDict[Recipe, Prefix] = OrderedDict()
        self._remembered(usual)
        if tuned.compile:
            self._warm_up()

    def _warm_up(self) -> None:
        """One step at full size, so that what is compiled for it is compiled before the first batch comes."""
        side = isqrt(self.editor.max_area)
        grey = Image.new("RGB", (side, side), "grey")
        size = self.editor.batch_size
        self.editor.edit([grey] * size, self._remembered(self.edits.usual), seeds=[0] * size, steps=1)

    def edit(
        self, queries: Sequence[Image.Image], variant: Variant, seeds: Sequence[int]
    ) -> Sequence[Image.Image | Draft]:
        """Edit RGB images this way, one seed each. A batch that does not fit into memory is done in smaller ones.

        Results have the sizes of their queries, or are drafts where they are to be restored to full resolution.

        Raises ImageError for what one query is, and what `Editor.edit` raises.
        """
        prefix = self._remembered(variant)
        edit = self.editor.draft if variant.recipe.restore else self.editor.edit
        while True:
            try:
                results = edit(queries, prefix, seeds=seeds, steps=variant.recipe.steps)
            except Exception as error:
                leave_if_broken(error)
                if not out_of_memory(error) or self.editor.batch_size == 1:
                    raise
                self._shrink()
            else:
                self._grow(len(queries))
                return results

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
            try:
                self.prefixes[recipe] = self.editor.remember(self.edits.shown(variant), compact=recipe.compact)
            except ImageError as error:
                raise PairError(f"This pair cannot be used: {error}") from None
            if len(self.prefixes) > PREFIXES_KEPT:
                self.prefixes.popitem(last=False)
        self.prefixes.move_to_end(recipe)
        return self.prefixes[recipe]

    def _shrink(self) -> None:
        import torch

        self.editor.batch_size = max(1, self.editor.batch_size // 2)
        self.since_shrunk = 0
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

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
