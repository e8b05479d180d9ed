"""The Editor: remember pairs once, then edit any number of queries the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from infra.errors import PairError
from pipelines.restore import Draft
from pipelines.transfer import adapters, bases, loading, passes, prompts, tuning
from pipelines.transfer.adapters import Lora
from pipelines.transfer.family import Family, Prompt, suited
from pipelines.transfer.invariance import edits, numerics_of
from pipelines.transfer.layout import Attention, Grid, compacted
from pipelines.transfer.loading import Quantised
from pipelines.transfer.passes import Prefix
from pipelines.transfer.pictures import check_framing, fitted, resized, to_images, to_tensor
from pipelines.transfer.sampler import denoise
from pipelines.tuning import PLAIN, Tuning

Pair = tuple[Image.Image, Image.Image]


class Editor:
    """Edits images the way the remembered pairs show. Same image, pairs and seed give the same pixels, in any batch.

    On a CPU one thread computes, whatever torch is told: the number of threads would decide the last bit of a sum.

    `adapter_digest` names the adapters worn, None without any.

    Args:
        family: the loaded base.
        base, revision: its name as given, and the digest of its content.
        attention: `prefix`, `full` or `joint`.
        max_area: pixels at which images go through the model at most; results come back in the query's own size.
        default_steps: denoising steps when none are asked for.
        distilled: texts guide it by themselves; their `guidance` is left out.
        batch_size: images that go through the model together at most.
        compact: by how much the sides of pairs have fewer tokens than those of queries.
        tuned: how the base is run.
        residuals: for the step cache `magcache` (see `tuning.step_cached`).
    """

    def __init__(
        self,
        family: Family,
        *,
        base: str,
        revision: str,
        attention: Attention,
        max_area: int,
        default_steps: int,
        batch_size: int = 8,
        distilled: bool = False,
        compact: int = 1,
        tuned: Tuning = PLAIN,
        residuals: Sequence[float] | None = None,
    ) -> None:
        if attention not in get_args(Attention):
            raise ValueError(f"attention must be one of {', '.join(get_args(Attention))}, not {attention!r}")
        if compact < 1:
            raise ValueError(f"compact must be at least 1, not {compact}")
        self.family = family
        self.base = base
        self.revision = revision
        self.attention: Attention = attention
        self.max_area = max_area
        self.default_steps = default_steps
        self.batch_size = batch_size
        self.distilled = distilled
        self.compact = compact
        self.tuned = tuned
        self.residuals = residuals
        self.adapter_digest: str | None = None
        self._worn: list[adapters.Outline] = []

    @classmethod
    def load(
        cls,
        base: str | Path | None = None,
        *,
        adapter: str | Path | Sequence[Lora] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        attention: Attention | None = None,
        max_area: int | None = None,
        prompt_embeds: Tensor | Prompt | Literal["base"] | None = "base",
        batch_size: int = 8,
        quantised: Quantised = "none",
        compact: int = 1,
        tuned: Tuning = PLAIN,
    ) -> Editor:
        """Load a base: the bundled one, a diffusers folder or a Hub id.

        Args:
            adapter: a LoRA in a .safetensors file, or several with their scales.
            device: `cuda` if there is one, else `cpu`.
            dtype: bfloat16 on a GPU, else float32.
            attention, max_area: the base's own by default.
            prompt_embeds: precomputed text, (1, T, E); None means no text; by default what the base brings, if any.
            quantised: keep the transformer's weights in fewer bits while it is trained (see `loading.quantise`).
            compact: show pairs with so many times fewer tokens a side, as the adapter was trained.
            tuned: how the base is run: with less memory or time, for something.

        Raises:
            BaseNotFound: there is no such base, or it is of an unknown family.
            UsageError: what `tuned` asks for cannot be had here.
            AdapterNotFound: there is no such adapter, or it does not fit the base.
        """
        folder = bases.find_base(base)
        settings = bases.settings_of(folder)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        text = prompts.of_base(folder) if isinstance(prompt_embeds, str) else prompt_embeds
        family = loading.load_family(folder, device, dtype, tuned=tuned)
        loading.quantise(family.transformer, quantised, dtype)
        editor = cls(
            family,
            base=str(base) if base is not None else folder.name,
            revision=bases.revision_of(folder),
            attention=attention or settings.attention,
            max_area=max_area or settings.max_area,
            default_steps=settings.steps,
            batch_size=batch_size,
            distilled=bases.is_distilled(folder),
            compact=compact,
            tuned=tuned,
            residuals=bases.residuals_of(folder) if tuned.step_cache == "magcache" else None,
        )
        editor.say(text)
        editor.wear([Lora(Path(adapter))] if isinstance(adapter, str | Path) else adapter or ())
        return editor

    def wear(self, loras: Sequence[Lora]) -> None:
        """Put these adapters on instead of those worn so far; what was remembered before is void.

        The base stays where it is: this takes a small part of the time of loading it.

        Raises:
            AdapterNotFound: there is no such file, or it does not fit the base, which is then left without any.
        """
        self.adapter_digest = None
        digest = adapters.digest_of(loras)
        worn, self._worn = self._worn, []
        self._worn = adapters.wear(self.family.transformer, loras, worn)
        self.adapter_digest = digest

    def say(self, prompt_embeds: Tensor | Prompt | None) -> None:
        """Use this text, precomputed (1, T, E), from now on, or none; what was remembered before is void.

        Raises:
            ValueError: its width E is not that of the base.
        """
        self.family.prompt = self.suited(prompt_embeds)

    def suited(self, prompt_embeds: Tensor | Prompt | None) -> Prompt:
        """A text as the base takes it, on its device; unguided where that is distilled. Raises as `say` does."""
        prompt = suited(prompt_embeds, self.family.silence)
        if self.distilled:  # guidance was distilled into it
            prompt = replace(prompt, negative=None, guidance=1.0)
        return prompt.to(self.family.device, self.family.dtype)

    @staticmethod
    def revision_of(base: str | Path | None) -> str:
        """The digest of a base's content, without loading it; raises `BaseNotFound`."""
        return bases.revision_of(base)

    @edits
    def remember(self, pairs: Sequence[Pair], attention: Attention | None = None, compact: int | None = None) -> Prefix:
        """Run the pairs once, for all queries to come; `attention` and `compact` if not as the Editor's own.

        Raises:
            PairError: no pairs, or a before and after of different framing.
            ImageError: an image too small or too elongated for the base.
        """
        if not pairs:
            raise PairError("There is no pair to learn the edit from. Give at least one before and after image.")
        for before, after in pairs:
            check_framing(before, after)
        working = [(self.fit(before), self.fit(after)) for before, after in pairs]
        grids = tuple((self.grid(before), self.grid(after)) for before, after in working)
        compact = compact or self.compact
        tokens = [(self.shown(before, compact), self.shown(after, compact)) for before, after in working]
        return passes.remember(self.family, tokens, grids, attention or self.attention, compact)

    def shown(self, working: Image.Image, compact: int) -> Tensor:
        """Clean tokens (1, S, C) of an image of a pair, which comes at its working size."""
        return self.shown_together([working], compact)

    def shown_together(self, working: Sequence[Image.Image], compact: int) -> Tensor:
        """The same of several images of one size: (B, S, C)."""
        rows, columns = compacted(self.grid(working[0]), compact)
        size = columns * self.family.multiple, rows * self.family.multiple
        return self.family.encode(to_tensor([resized(image, size) for image in working]))

    @edits
    def edit(
        self,
        queries: Sequence[Image.Image],
        prefix: Prefix,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Edit RGB images, one seed each; results have the queries' own sizes.

        Raises:
            ImageError: a query is too small or too elongated.
            ValueError: not as many seeds as queries, or fewer than one step.
        """
        made = self._made([self.fit(query) for query in queries], prefix, seeds, steps)
        return [resized(image, query.size) for image, query in zip(made, queries, strict=True)]

    @edits
    def draft(
        self,
        queries: Sequence[Image.Image],
        prefix: Prefix,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
    ) -> list[Draft]:
        """The same, with results at working size and what `pipelines.restore` needs to bring them to full resolution.

        Raises as `edit` does.
        """
        working = [self.fit(query) for query in queries]
        made = self._made(working, prefix, seeds, steps)
        return [Draft(image, seen, self.coded(seen)) for image, seen in zip(made, working, strict=True)]

    @edits
    def coded(self, working: Image.Image) -> Image.Image:
        """An image at working size, through the base's autoencoder and back."""
        tokens = self.family.encode(to_tensor([working]))
        return to_images(self.family.decode(tokens, self.grid(working)))[0]

    def _made(
        self, working: Sequence[Image.Image], prefix: Prefix, seeds: Sequence[int], steps: int | None
    ) -> list[Image.Image]:
        if len(seeds) != len(working):
            raise ValueError(f"{len(working)} queries need as many seeds, not {len(seeds)}")
        steps = self.default_steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        results: dict[int, Image.Image] = {}
        for grid, indices in self._batches(working):
            images = self._edit_batch([working[i] for i in indices], grid, prefix, [seeds[i] for i in indices], steps)
            results.update(zip(indices, images, strict=True))
        return [results[i] for i in range(len(working))]

    def _batches(self, working: Sequence[Image.Image]) -> list[tuple[Grid, list[int]]]:
        """Indices of images that go through the model together: equal grids, `batch_size` at most."""
        by_grid: dict[Grid, list[int]] = defaultdict(list)
        for index, image in enumerate(working):
            by_grid[self.grid(image)].append(index)
        size = 1 if self.one_by_one else self.batch_size
        return [
            (grid, indices[start : start + size])
            for grid, indices in by_grid.items()
            for start in range(0, len(indices), size)
        ]

    @property
    def one_by_one(self) -> bool:
        """Whether images must not share a batch, which would change them: compiled blocks are no longer invariant."""
        return self.tuned.one_by_one or (self.tuned.compile and self.family.device.type == "cpu")

    def _edit_batch(
        self, images: list[Image.Image], grid: Grid, prefix: Prefix, seeds: list[int], steps: int
    ) -> list[Image.Image]:
        tokens = self._denoised(images, grid, prefix, seeds, steps)
        return to_images(self.family.decode(tokens, grid))

    def _denoised(self, images: list[Image.Image], grid: Grid, prefix: Prefix, seeds: list[int], steps: int) -> Tensor:
        """Tokens of the results. The keys and values of the queries go when it returns, before anything is decoded."""
        plan = prefix.layout(grid)
        plain = passes.velocity_field(self.family, self.family.encode(to_tensor(images)), prefix, plan)
        velocity = passes.guided(self.family, plain)
        noise = self.family.noise(seeds, plan.result).to(self.family.device)
        sigmas = self.family.sigmas(steps, plan.result.tokens)
        with tuning.step_cached(self.family.transformer, self.tuned.step_cache, steps, self.residuals):
            return denoise(velocity, noise, sigmas)

    @property
    def numerics(self) -> str:
        """What decides how its results are rounded: machine, dtype and versions, in a few words."""
        return numerics_of(self.family.device, self.family.dtype)

    def fit(self, image: Image.Image) -> Image.Image:
        """The image in RGB at the size at which it goes through the model."""
        return fitted(image, self.family.multiple, self.max_area)

    def grid(self, image: Image.Image) -> Grid:
        return self.family.grid(*image.size)
