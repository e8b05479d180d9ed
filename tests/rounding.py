"""How this machine can be made to round otherwise, and whether a batch then changes anybody's bits.

`python -m tests.rounding [ROWS ...]` prints one line for every pass whose images differ from the same images alone.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

SETTINGS = {  # what libraries read from the environment as they are loaded
    "mkl strict": {"MKL_CBWR": "AVX2,STRICT"},
    "mkl compatible": {"MKL_CBWR": "COMPATIBLE"},
    "plain": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "two threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "two threads, mkl compatible": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"},
}
BATCHES = (2, 3, 5, 8, 16)
ATTENTIONS = ("prefix", "full", "joint")


def run_under(setting: str, module: str, *arguments: str) -> str:
    """What a module of the tests prints in a process that rounds so. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | SETTINGS.get(setting, {})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def differences(rows: Sequence[int]) -> Iterator[str]:
    """Passes over grids of so many tokens in which an image of a batch is not what it is alone."""
    import torch

    from tests.tiny import make_tiny_base, make_tiny_flux1

    with tempfile.TemporaryDirectory() as place:
        folders = [make_tiny_base(Path(place, "flux2")), make_tiny_flux1(Path(place, "flux1"))]
        for folder in folders:
            for dtype in (torch.float32, torch.bfloat16):
                for attention in ATTENTIONS:
                    yield from _differing(folder, dtype, attention, rows)


def _differing(folder: Path, dtype, attention: str, rows: Sequence[int]) -> Iterator[str]:
    """Both ways of batching: one pair and noise level for all (Editor), and each its own (engine)."""
    import torch
    from PIL import Image

    from pipelines.transfer import Editor, passes
    from pipelines.transfer.invariance import editing
    from pipelines.transfer.mixture import Mixture

    editor = Editor.load(folder, dtype=dtype, attention=attention)
    family, mixture = editor.family, Mixture(editor.family)
    prefix = editor.remember([(Image.new("RGB", (48, 32), "red"), Image.new("RGB", (48, 32), "blue"))])

    def together(query, x, levels):
        with mixture.worn([None] * len(x)):
            read = passes.contexts(family, query, [prefix] * len(x), [plan] * len(x))
            return passes.velocities(family, x, levels, read)

    def alike(query, x):
        return passes.velocity_field(family, query, prefix, plan)(x, torch.tensor([0.5]))

    for tokens, batch in zip(rows, cycle(BATCHES), strict=False):
        plan = prefix.layout((1, tokens))
        draw = torch.Generator().manual_seed(tokens)
        query, x = torch.randn(2, batch, tokens, family.channels, generator=draw)
        levels = torch.rand(batch, generator=draw)
        with editing(family.device):
            for way, given in ((together, (query, x, levels)), (alike, (query, x))):
                alone = torch.cat([way(*each) for each in zip(*(part.split(1) for part in given), strict=True)])
                if not torch.equal(way(*given), alone):
                    yield f"{folder.name} {dtype} {attention} {way.__name__}: {tokens} tokens, batch of {batch}"


if __name__ == "__main__":
    for line in differences([int(text) for text in sys.argv[1:]] or range(1, 41)):
        print(line)
