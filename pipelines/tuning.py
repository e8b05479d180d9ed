"""How a base is run, as people choose it. Nothing heavy is imported here; `pipelines.transfer.tuning` makes it so."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import typer

from infra.errors import UsageError

Weights = Literal["full", "float8", "int8", "int4"]
StepCache = Literal["none", "first-block", "taylorseer", "magcache"]

PANEL = "Memory and speed"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a base is run with.

    weights            of the blocks' linear layers: as the base has them, or in 8 or 4 bits (torchao)
    compile            the blocks are compiled before their first use (torch.compile)
    step_cache         some denoising steps reuse what earlier ones computed (diffusers)
    tiling             the autoencoder works tile by tile
    offload            blocks wait in the host's memory and come to the GPU one after the other
    attention_backend  a name that diffusers knows, such as `flash` or `sage`; None for torch's own choice

    Raises UsageError for a value that is none.
    """

    weights: Weights = "full"
    compile: bool = False
    step_cache: StepCache = "none"
    tiling: bool = False
    offload: bool = False
    attention_backend: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("weights", get_args(Weights)), ("step_cache", get_args(StepCache))):
            if getattr(self, name) not in known:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} can be {', '.join(known)}, not {getattr(self, name)}.")

    @property
    def mark(self) -> str | None:
        """What of it changes results by more than rounding, in one word, None for nothing of it."""
        backend = self.attention_backend or ""
        told = [
            *([self.weights] * (self.weights != "full")),
            *([self.step_cache] * (self.step_cache != "none")),
            *(["tiling"] * self.tiling),
            *([backend] * ("sage" in backend)),  # which computes in 8 bits
        ]
        return "+".join(told) or None

    @property
    def one_by_one(self) -> bool:
        """Whether images must not share a batch: which steps `first-block` leaves out depends on what is in it."""
        return self.step_cache == "first-block"


PLAIN = Tuning()


def options(
    weights: Annotated[
        Weights,
        typer.Option(
            help="Of the transformer's blocks: `full`, or in 8 or 4 bits: half or a quarter of the memory, for some"
            " precision. `float8` is faster too where a GPU multiplies in it; `int4` needs CUDA.",
            rich_help_panel=PANEL,
        ),
    ] = "full",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the blocks first: minutes at the start, kept for the next time; faster from then on. Results"
            " change by rounding only.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    step_cache: Annotated[
        StepCache,
        typer.Option(
            help="Leave out part of the denoising steps, for some fidelity. For bases of 20 steps and more, not for"
            " distilled ones: `taylorseer` for all; `first-block` (FLUX.1, one image at a time); `magcache` (FLUX.1, or"
            " a base that brings `residuals`).",
            rich_help_panel=PANEL,
        ),
    ] = "none",
    tiling: Annotated[
        bool,
        typer.Option(
            "--tiling",
            help="Run the autoencoder tile by tile: less memory for large images, slight differences between tiles.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    offload: Annotated[
        bool,
        typer.Option(
            "--offload",
            help="Keep the blocks in the host's memory and bring them to the GPU one by one: the same results in a"
            " fraction of the GPU's memory, slower.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    attention_backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Kernels for attention, as diffusers names them (`flash`, `_flash_3`, `sage`). Default: torch's own.",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> Tuning:
    """Those options of a command, for `infra.options.with_options_of`, as what they mean."""
    return Tuning(
        weights=weights,
        compile=compile,
        step_cache=step_cache,
        tiling=tiling,
        offload=offload,
        attention_backend=attention_backend,
    )
