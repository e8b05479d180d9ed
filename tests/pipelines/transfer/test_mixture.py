"""Images of one batch may differ in adapter, pairs and noise level, and come out as each alone."""

import pytest
import torch

from pipelines.transfer import Editor, Lora, bases, passes
from pipelines.transfer import adapters as lora_adapters
from pipelines.transfer.layout import layout
from pipelines.transfer.mixture import Mixture
from tests.serving.adapters import lora_bytes, picture

LEVELS = torch.tensor([1.0, 0.3, 0.7, 0.3, 0.05])


@pytest.fixture(scope="module")
def loras(tmp_path_factory) -> dict[str | None, list[Lora]]:
    """Two on all layers, of unlike rank, one on some; and none."""
    folder, worn = tmp_path_factory.mktemp("loras"), {None: []}
    for seed, options in enumerate([{"rank": 4}, {"rank": 8}, {"targets": ["to_q", "linear_in"]}]):
        path = folder / f"{seed}.safetensors"
        path.write_bytes(lora_bytes(bases.BUNDLED, seed, **options))
        worn[f"worn{seed}"] = [Lora(path, 1.0 - seed / 4)]
    return worn


MIXED, ALIKE = ["worn1", None, "worn0", "worn2", "worn1"], ["worn2"] * 5


@pytest.mark.parametrize(("attention", "names"), [("prefix", MIXED), ("full", MIXED), ("prefix", ALIKE)])
@torch.inference_mode()
def test_every_image_of_a_batch_is_as_if_alone(loras, attention, names):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = [[(picture(10 + row), picture(20 + row))] * (1 + row % 2 * (attention == "prefix")) for row in range(5)]
    alone, together = Editor.load(attention=attention), Editor.load(attention=attention)
    channels = alone.family.channels
    x_BSC = torch.randn(5, 16, channels, generator=torch.Generator().manual_seed(0))
    query_BSC = torch.randn(5, 16, channels, generator=torch.Generator().manual_seed(1))
    expected = []
    for row, name in enumerate(names):
        alone.wear(loras[name])
        prefix = alone.remember(own[row])
        plan = layout(prefix.grids, (4, 4), attention)
        velocity = passes.velocity_field(alone.family, query_BSC[row : row + 1], prefix, plan)
        expected.append(velocity(x_BSC[row : row + 1], LEVELS[row : row + 1]))

    family = together.family
    mixture = Mixture(family)
    for name, [lora] in [(name, worn) for name, worn in loras.items() if name]:
        lora_adapters.hang(family.transformer, lora, name)
    mixture.refresh()
    prefixes = []
    for name, pairs in zip(names, own, strict=True):
        with mixture.worn([name]):
            prefixes.append(together.remember(pairs))
    with mixture.worn(names):
        plans = [layout(prefix.grids, (4, 4), attention) for prefix in prefixes]
        read = passes.contexts(family, query_BSC, prefixes, plans)
        velocities = passes.velocities(family, x_BSC, LEVELS, read)
    assert torch.equal(velocities, torch.cat(expected))
    torch.set_num_threads(threads)


def test_a_transformer_without_a_mixture_at_work_does_what_it_did(loras, scene):
    def edit(editor: Editor) -> bytes:
        return editor.edit([scene(3)], editor.remember([(scene(1), scene(2))]), seeds=[5])[0].tobytes()

    plain, mixed = Editor.load(), Editor.load()
    before = edit(plain)
    Mixture(mixed.family).refresh()
    assert edit(mixed) == before
    mixed.wear(loras["worn0"])
    plain.wear(loras["worn0"])
    assert edit(mixed) == edit(plain) != before
