from __future__ import annotations

import pytest
import torch
from diffusers import Flux2Transformer2DModel

from pipelines.transfer.bases import BUNDLED


@pytest.fixture(scope="session")
def bundled() -> Flux2Transformer2DModel:
    """The bundled transformer in single precision; tests do not change it."""
    return Flux2Transformer2DModel.from_pretrained(BUNDLED / "transformer", torch_dtype=torch.float32)
