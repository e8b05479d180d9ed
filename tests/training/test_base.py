"""The making of the miniature: the written encoder, the seeded loop, resuming."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from infra.errors import UsageError
from pipelines.transfer import Editor
from pipelines.transfer.bases import BUNDLED
from pipelines.transfer.flux2 import Flux2
from training.base import make
from training.base import slice as slices
from training.base.architecture import HEAD, RECIPES, new_scheduler, new_transformer, new_vae
from training.base.batches import draw_batch
from training.base.blockpca import LinearEncoder, start_decoder, write_encoder
from training.base.heads import PairReader, Preview
from training.base.session import SEED_OF_PROCESS, Order, Session, train
from training.base.transfer import TransferLoss
from training.base.vae import draw_images, reconstruction_psnr
from training.loop import FullCheckpoint, Schedule, Trainer, generator_for
from training.scenes import COMPOSITIONS, FAMILIES

TINY = RECIPES["tiny"]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return draw_images(300, generator_for(0, 0, torch.device("cpu")))


@pytest.fixture(scope="module")
def vae(images):
    model = new_vae().eval()
    write_encoder(model, images)
    start_decoder(model, images[:100])
    return model


@torch.no_grad()
def test_the_written_encoder_is_linear_and_local(vae, images):
    def encode(x):
        return vae.encode(x).latent_dist.mode()

    a, b = images[:4], images[4:8]
    middle = encode((a + b) / 2)
    torch.testing.assert_close(middle, (encode(a) + encode(b)) / 2, atol=0.05, rtol=0.02)
    touched = a.clone()
    touched[:, :, 8:16, 16:24] += 0.5
    moved = (encode(touched) - encode(a)).abs().amax(1)
    assert moved[:, 1, 2].min() > 10 * moved.flatten(1).sort(1).values[:, -2].max()


@torch.no_grad()
def test_latents_lose_little_and_start_well(vae, images):
    """Block mean colours from the start; the best linear decoder shows what the latents hold."""
    held = draw_images(60, generator_for(9, 0, torch.device("cpu")))
    assert reconstruction_psnr(vae, held) > 20
    latents = vae.encode(images).latent_dist.mode().transpose(0, 1).flatten(1).T
    blocks = nn.functional.pixel_unshuffle(images, 8).transpose(0, 1).flatten(1).T
    decoder = torch.linalg.lstsq(latents, blocks).solution
    test = vae.encode(held).latent_dist.mode()
    rebuilt = nn.functional.pixel_shuffle(torch.einsum("bchw,co->bohw", test, decoder), 8)
    psnr = -10 * torch.log10(((rebuilt - held) / 2).square().mean((1, 2, 3)))
    assert psnr.mean() > 30


def _train(folder, steps: int, seed: int = 0) -> dict[str, torch.Tensor]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    trainer = Trainer(model, Schedule(steps=steps, rate=1e-2, warmup=1, cooldown=0.0, checkpoint_every=3), folder)

    def loss(step: int):
        x = torch.randn(16, 4, generator=generator_for(1, step, torch.device("cpu")))
        return (model(x) - x[:, :2]).square().mean(), 16

    for _ in trainer.run(loss):
        pass
    return {k: v.clone() for k, v in trainer.average.state_dict().items()} | {"steps": torch.tensor(trainer.step)}


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    _train(tmp_path / "stopped", steps=6)
    resumed = _train(tmp_path / "stopped", steps=9, seed=5)  # the seed of the weights no longer matters
    straight = _train(tmp_path / "straight", steps=9)
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


@torch.no_grad()
def test_one_matrix_encodes_as_the_convolutions_do(vae, images):
    family = Flux2(new_transformer(TINY), vae, new_scheduler())
    encode = LinearEncoder(family.encode, images, family.multiple)
    held = draw_images(30, generator_for(9, 0, torch.device("cpu")))
    exact = family.encode(held)
    assert (encode(held) - exact).square().mean() < 1e-4 * exact.square().mean()


def test_a_batch_shows_each_edit_on_a_pair_and_a_query_of_its_own(vae):
    def pixels(images):
        return nn.functional.pixel_unshuffle(images, 16).flatten(2).transpose(1, 2)

    shares = {"recolour": 3, "remove": 2, "pose": 1}
    batch = draw_batch(shares, pixels, ((4, 4), (2, 8)), 16, generator_for(0, 0, torch.device("cpu")))
    assert len(batch) == 6 and batch.edit.tolist() == [0, 0, 0, 1, 1, 2]
    assert not torch.equal(batch.before[:, :4], batch.query[:, :4])
    assert ((batch.query - batch.truth).abs().amax((1, 2)) > 0.02).all()
    assert batch.parameters.isnan().logical_not().sum(1).tolist() == [4, 4, 4, 1, 1, 3]  # hue opened to two


def test_the_loss_is_seeded_and_teaches_every_trained_part(vae):
    family = Flux2(new_transformer(TINY), vae.requires_grad_(False), new_scheduler())
    nn.init.normal_(family.transformer.proj_out.weight, std=0.02)
    for modulation in (
        family.transformer.double_stream_modulation_img,
        family.transformer.single_stream_modulation,
    ):
        nn.init.normal_(modulation.linear.weight, std=0.02)
    reader = PairReader(TINY.heads * HEAD, len(TINY.shares), (0, 1))
    preview = Preview(TINY.heads * HEAD, family.channels)
    loss = TransferLoss(family, reader, preview, family.encode, TINY, seed=3)
    value, samples = loss(0)
    value.backward()
    assert samples == TINY.batch
    assert torch.equal(loss(0)[0], loss(0)[0]) and not torch.equal(loss(0)[0], loss(1)[0])
    assert all(p.grad is not None and p.grad.any() for p in (*reader.parameters(), *preview.parameters()))
    silent = [name for name, p in family.transformer.named_parameters() if p.grad is None or not p.grad.any()]
    text = ("context", "add_", "added_", "txt", "to_add_out")
    assert all(any(word in name for word in text) for name in silent)  # the miniature is trained without text


def _order(folder, **changes) -> Order:
    return Order(folder=folder, vae=BUNDLED / "vae", recipe=TINY, compiled=False, **changes)


def _weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def test_a_run_leaves_a_log_scores_pictures_and_a_page(tmp_path, capsys):
    train(_order(tmp_path, steps=TINY.look_every))
    said = capsys.readouterr().out
    assert "drawing takes" in said and "background" in said
    scored = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert {line["family"] for line in scored} == {*FAMILIES, *COMPOSITIONS}
    assert Image.open(tmp_path / "samples.png").width > 400
    page = (tmp_path / "log.html").read_text()
    assert page.count("<polyline") == 1 + 2 * len(scored) and "samples.png" in page and "://" not in page


@pytest.mark.slow
def test_two_processes_train_one_model_on_twice_the_tuples(tmp_path):
    """The first step of two processes is the step along the mean of their gradients."""
    train(_order(tmp_path / "two", steps=1, processes=2))
    together = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert together["samples"] == 2 * TINY.batch
    session = Session(_order(tmp_path / "one", steps=1))
    mine = session.loss
    other = TransferLoss(mine.family, mine.reader, mine.preview, mine.encode, TINY, seed=SEED_OF_PROCESS)

    def both(step: int):
        value, samples = mine(step)
        return (value + other(step)[0]) / 2, 2 * samples

    for _ in session.trainer.run(both):
        pass
    alone = torch.load(tmp_path / "one" / "checkpoint.pt", weights_only=True)
    for key, weight in alone["model"].items():
        torch.testing.assert_close(together["model"][key], weight, atol=2e-5, rtol=1e-3)


def test_steps_drawn_together_are_those_drawn_alone_in_number_and_kind(vae):
    recipe = replace(TINY, drawn_together=3)
    family = Flux2(new_transformer(recipe), vae, new_scheduler())
    heads = PairReader(64, 3, (0,)), Preview(64, family.channels)
    loss = TransferLoss(family, *heads, family.encode, recipe, seed=0)
    batches = [loss.draw(step) for step in range(4)]
    assert all(batch.edit.tolist() == [0, 0, 0, 1, 1, 2] for batch in batches)
    assert len({float(batch.before.sum()) for batch in batches}) == 4
    again = TransferLoss(family, *heads, family.encode, recipe, seed=0).draw(1)  # as if resumed in between
    assert torch.equal(again.truth, batches[1].truth)


@pytest.mark.slow
def test_a_slice_goes_on_from_small_files_and_ends_as_a_base(tmp_path):
    folder, base = tmp_path / "slice", tmp_path / "base"
    arguments = [str(folder), "--recipe", "tiny", "--device", "cpu", "--eager", "--minutes"]
    slices.main([*arguments, "0.1"])
    first = _step_of(folder)
    slices.main([*arguments, "0.1", "--cool", "--export", str(base)])
    assert 0 < first < _step_of(folder)
    assert len(list(folder.iterdir())) <= 8
    editor = Editor.load(base)
    grey = Image.new("RGB", (64, 64), "grey")
    assert editor.edit([grey], editor.remember([(grey, grey)]), seeds=[1])[0].size == (64, 64)
    arguments[2] = "cpu"
    with pytest.raises(UsageError, match="recipe"):
        slices.main([*arguments, "0.1"])


def _step_of(folder) -> int:
    with safe_open(folder / "weights-0.safetensors", "pt") as file:
        return int(file.metadata()["step"])


def test_what_a_gpu_slice_leaves_is_small(tmp_path):
    recipe = RECIPES["gpu"]
    heads = nn.ModuleDict({"reader": PairReader(recipe.heads * HEAD, len(recipe.shares), (2, 3, 4))})
    model = nn.ModuleDict({"transformer": new_transformer(recipe), "heads": heads})
    trainer = Trainer(model, Schedule(steps=1, rate=1e-3), tmp_path, slices.SmallCheckpoint("gpu"))
    trainer.save()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert max(sizes) < 15e6 and sum(sizes) < 60e6 and len(sizes) + 4 <= 8  # log, scores, page, samples


def test_impossible_orders_are_refused_in_a_sentence(tmp_path):
    for arguments, word in (
        (["transformer", str(tmp_path), "--recipe", "tiny"], "make vae"),
        (["export", str(tmp_path), str(tmp_path / "base")], "no checkpoint"),
    ):
        result = CliRunner().invoke(make.app, arguments)
        assert result.exit_code == 2 and word in result.output


@pytest.mark.slow
def test_two_runs_with_one_seed_agree_for_a_hundred_steps(tmp_path):
    for name in ("a", "b"):
        train(_order(tmp_path / name, steps=100, checkpoint=FullCheckpoint()))
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    """kill -9 in the middle: the same command loses at most the steps since the last checkpoint, and ends as a run
    that was never killed."""
    (tmp_path / "run").mkdir()
    shutil.copytree(BUNDLED / "vae", tmp_path / "run" / "vae")
    command = [sys.executable, "-m", "training.base.make", "transformer", str(tmp_path / "run"), "--recipe", "tiny"]
    command += ["--steps", "40", "--no-compiled"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reached = 0
    for line in run.stdout:
        if line.startswith("step "):
            reached = int(line.split()[1])
        if reached >= 15:
            break
    run.send_signal(signal.SIGKILL)
    run.wait()
    saved = torch.load(tmp_path / "run" / "transformer" / "checkpoint.pt", weights_only=True)["step"]
    assert reached - saved <= TINY.checkpoint_every
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    train(_order(tmp_path / "straight", steps=40))
    killed, straight = _weights(tmp_path / "run" / "transformer"), _weights(tmp_path / "straight")
    assert all(torch.equal(killed[key], straight[key]) for key in straight)
