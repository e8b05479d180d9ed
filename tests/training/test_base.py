"""The making of the miniature: the written encoder, the seeded loop, resuming."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from PIL import Image
from torch import nn

from infra.errors import LeaseHeld, UsageError
from pipelines.transfer import Editor
from pipelines.transfer.bases import BUNDLED
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import layout
from training import loop
from training.base import grow
from training.base.architecture import HEAD, new_scheduler, new_transformer, new_vae
from training.base.background import PID, alone_in, working_in
from training.base.batches import draw_batch
from training.base.blockpca import LinearEncoder, start_decoder, write_encoder
from training.base.export import CheckpointWithBase
from training.base.heads import PairReader, Preview
from training.base.recipe import LAST, PHASES, Autoencoder, leading_to
from training.base.session import SEED_OF_PROCESS, Order, Session, train
from training.base.transfer import CHANGED, Tally, TransferLoss
from training.base.vae import draw_images, make_autoencoder, reconstruction_psnr
from training.base.widen import widen
from training.loop import NoCheckpoint, Schedule, Trainer, generator_for
from training.scenes import COMPOSITIONS, FAMILIES

TINY, DRY = PHASES["tiny"], PHASES["dry"]


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
    trainer = Trainer(model, Schedule(steps=steps, rate=1e-2, warmup=1, cooldown=0.0), folder)

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
    return Order(**{"folder": folder, "vae": BUNDLED / "vae", "phase": TINY, "compiled": False} | changes)


def _short(steps: int, **changes):
    return replace(TINY, tuples=steps * TINY.batch, **changes)


def _weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def _log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_log_a_base_scores_pictures_and_a_page(tmp_path, capsys):
    train(_order(tmp_path, phase=_short(10)))
    assert "against copying: background" in capsys.readouterr().out
    log = _log(tmp_path)
    assert [line["step"] for line in log] == [5, 10] and all(set(line["notes"]) <= set(TINY.shares) for line in log)
    assert {line["family"] for line in json.loads((tmp_path / "scores.json").read_text())} == set(TINY.shares)
    assert Image.open(tmp_path / "samples.png").width > 400
    page = (tmp_path / "log.html").read_text()
    assert page.count("<polyline") == 1 + len(TINY.shares) and "samples.png" in page and "://" not in page
    _edits(tmp_path / "base")


def _edits(base: Path) -> None:
    editor = Editor.load(base)
    grey = Image.new("RGB", (64, 64), "grey")
    assert editor.edit([grey], editor.remember([(grey, grey)]), seeds=[1])[0].size == (64, 64)


@pytest.mark.slow
def test_two_processes_train_one_model_on_twice_the_tuples(tmp_path):
    """The first step of two processes is the step along the mean of their gradients."""
    train(_order(tmp_path / "two", phase=_short(2), processes=2))
    together = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert together["samples"] == 2 * TINY.batch
    session = Session(_order(tmp_path / "one", phase=_short(1)))
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
    phase = replace(TINY, drawn_together=3)
    family = Flux2(new_transformer(phase), vae, new_scheduler())
    heads = PairReader(64, 3, (0,)), Preview(64, family.channels)
    loss = TransferLoss(family, *heads, family.encode, phase, seed=0)
    batches = [loss.draw(step) for step in range(4)]
    assert all(batch.edit.tolist() == [0, 0, 0, 1, 1, 2] for batch in batches)
    assert len({float(batch.before.sum()) for batch in batches}) == 4
    again = TransferLoss(family, *heads, family.encode, phase, seed=0).draw(1)  # as if resumed in between
    assert torch.equal(again.truth, batches[1].truth)


def test_the_tally_compares_changed_tokens_at_full_noise_with_copying():
    tally = Tally(["a", "b", "c"], torch.device("cpu"))
    edits, copied = torch.tensor([0, 1, 1]), torch.tensor([[4.0, CHANGED / 2], [2.0, 0.0], [9.0, 9.0]])
    error = torch.tensor([[1.0, 7.0], [1.0, 7.0], [7.0, 7.0]])
    tally.add(edits, torch.tensor([True, True, False]), error, copied)
    tally.add(edits[:1], torch.tensor([True]), torch.tensor([[2.0, 2.0]]), torch.tensor([[4.0, 4.0]]))
    assert tally.tell() == {"a": pytest.approx(5 / 12), "b": pytest.approx(0.5)}
    assert tally.tell() == {}


class _Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def _timed(folder, seconds: float, stop: int | None = None) -> list[loop.Progress]:
    model = nn.Linear(2, 1)
    schedule = Schedule(steps=10**9, rate=1.0, seconds=seconds, warmup=1, cooldown=0.5, log_every=1, checkpoint_every=5)
    trainer, told = Trainer(model, schedule, folder), []
    for progress in trainer.run(lambda step: (model.weight.square().sum(), 1)):
        told.append(progress)
        if len(told) == stop:
            break
    return told


def test_the_rate_has_fallen_to_zero_when_the_time_is_up_also_of_a_killed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "time", _Clock())
    killed = _timed(tmp_path, seconds=400, stop=20)
    rest = _timed(tmp_path, seconds=400)
    assert killed[10].done < rest[0].done < killed[-1].done + 0.1 and rest[0].step > 10  # where it was
    assert rest[-1].rate < 0.1 < rest[0].rate
    rates = [progress.rate for progress in rest]
    assert rates == sorted(rates, reverse=True)
    assert not _timed(tmp_path, seconds=400)  # it is over


def test_cudnn_does_not_attend_in_training(tmp_path):
    seen = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            return gradient

    model = nn.Linear(2, 1)
    trainer = Trainer(model, Schedule(steps=1, rate=1e-3, log_every=1), tmp_path, NoCheckpoint())
    between = [
        torch.backends.cuda.cudnn_sdp_enabled() for _ in trainer.run(lambda _: (Look.apply(model.weight).sum(), 1))
    ]
    assert seen == [False, False] and between == [True]


@pytest.fixture(scope="module")
def bundled():
    return Flux2Transformer2DModel.from_pretrained(BUNDLED / "transformer", torch_dtype=torch.float32)


@torch.no_grad()
def _velocity(model, vae, images) -> torch.Tensor:
    """What the model says about the after image of a pair, having read pair and query, at the levels of two steps."""
    family, grid = Flux2(model, vae, new_scheduler()), (4, 4)
    before, after, query = family.encode(images[:6]).split(2)
    plan = layout([(grid, grid)], grid, "prefix")
    pair = family.run_clean(torch.cat([before, after], 1), plan.pairs[0])
    prefix = [pair, family.run_clean(query, [plan.query], [pair])]
    noise = torch.randn(query.shape, generator=generator_for(0, 0, query.device))
    said = [family.run_result(noise * t + query * (1 - t), plan.result, torch.tensor([t, t]), prefix) for t in (1, 0.5)]
    return torch.stack(said)


@pytest.mark.parametrize(("heads", "single"), [(1, 0), (4, 2)])
def test_a_widened_model_computes_the_same(bundled, vae, images, heads, single):
    config = bundled.config
    phase = replace(DRY, heads=config.num_attention_heads + heads, single=config.num_single_layers + single)
    wide = widen(bundled, phase)
    assert wide.config.num_attention_heads == phase.heads and wide.config.num_single_layers == phase.single
    same = _velocity(bundled, vae, images)
    assert (_velocity(wide, vae, images) - same).norm() < 1e-3 * same.norm()


def test_a_widened_model_learns_with_all_that_is_new(vae):
    small = new_transformer(TINY)
    for parameter in small.parameters():
        nn.init.normal_(parameter, std=0.1)
    phase = replace(TINY, heads=3, single=2)
    family = Flux2(widen(small, phase), vae.requires_grad_(False), new_scheduler())
    reader, preview = PairReader(3 * HEAD, len(TINY.shares), (0,)), Preview(3 * HEAD, family.channels)
    TransferLoss(family, reader, preview, family.encode, phase, seed=0)(0)[0].backward()
    model, width = family.transformer, 2 * HEAD
    wide = model.single_transformer_blocks[0].attn.to_out.weight.grad
    assert wide[width:].any(1).all() and wide[:, width : 3 * HEAD].any(0).all()  # new channels, new heads
    assert model.single_transformer_blocks[1].attn.to_out.weight.grad.any()  # a new block
    assert model.x_embedder.weight.grad[width:].any(1).all()


def test_a_model_of_the_same_size_stays_and_a_smaller_one_is_refused(bundled):
    phase = replace(DRY, heads=bundled.config.num_attention_heads, single=bundled.config.num_single_layers)
    same = widen(bundled, phase).state_dict()
    assert all(torch.equal(weight, same[name]) for name, weight in bundled.state_dict().items())
    with pytest.raises(UsageError, match="not shrink"):
        widen(bundled, replace(phase, heads=phase.heads - 1))


def test_the_recipe_leads_from_nothing_to_the_bundled_base(bundled):
    path = [PHASES[name] for name in leading_to(LAST)]
    assert path[0].after is None and path[-1].heads == bundled.config.num_attention_heads
    assert path[-1].single == bundled.config.num_single_layers and path[-1].panel ** 2 == Editor.load().max_area
    for before, after in pairwise(path):
        assert before.heads <= after.heads and before.single <= after.single
    assert set(path[-1].shares) == {*FAMILIES, *COMPOSITIONS}
    for phase in PHASES.values():
        rows = {len({r * c for r, c in grids}) for grids in phase.grids}
        assert rows == {1} and set(phase.shares) <= {*FAMILIES, *COMPOSITIONS}
        assert all(r * c * 16**2 <= phase.panel**2 for grids in phase.grids for r, c in grids)


def test_what_a_run_keeps_is_small_whole_and_replaced(tmp_path, bundled):
    """In files that can be carried back from a lent machine."""
    heads = nn.ModuleDict({"preview": Preview(64, 128)})
    trainer = Trainer(
        nn.ModuleDict({"transformer": bundled, "heads": heads}),
        Schedule(steps=1, rate=1e-3),
        tmp_path,
        CheckpointWithBase(BUNDLED / "vae", PHASES[LAST]),
    )
    for trainer.step in (1, 2, 10):
        trainer.save()
    assert (tmp_path / "base").resolve().name == "base-10"
    assert {path.name for path in tmp_path.glob("base*")} == {"base", "base-2", "base-10"}
    sizes = [path.stat().st_size for path in (tmp_path / "base").rglob("*") if path.is_file()]
    assert max(sizes) < 15e6 and sum(sizes) < 60e6
    kept = json.loads((tmp_path / "base" / "edit_transfer.json").read_text())
    assert kept == json.loads((BUNDLED / "edit_transfer.json").read_text())


def test_an_autoencoder_is_made_and_appears_when_it_is_done(tmp_path):
    recipe, said = Autoencoder(steps=2, batch=12, rate=1e-3, ema=0.9), []
    make_autoencoder(tmp_path / "work", tmp_path / "vae", recipe, 0, "cpu", said.append)
    assert "dB" in said[-1] and (tmp_path / "vae" / "config.json").exists()
    base = grow._parse([str(tmp_path), "--phase", "tiny"])
    assert next(grow._orders(base)).vae == tmp_path / "vae"


def test_each_phase_goes_on_from_the_one_before_or_from_the_bundled_base(tmp_path):
    def start(*arguments: str) -> Path | None:
        return next(grow._orders(grow._parse([str(tmp_path), *arguments]))).start

    assert start("--phase", "tiny") is None and start("--from-nothing") is None
    assert start("--phase", "fine") == BUNDLED
    (tmp_path / "small" / "base").mkdir(parents=True)
    assert start("--phase", "fine") == tmp_path / "small" / "base"
    assert start("--from-nothing", "--phase", "fine") is None
    (tmp_path / "small" / "scores.json").touch()
    assert start("--from-nothing", "--phase", "fine") == tmp_path / "small" / "base"  # what is over is not done again


def test_impossible_orders_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, word in (
        (["--device", "cuda"], "no GPU"),
        (["--phase", "fine"], "not shrink"),
    ):
        with pytest.raises(UsageError, match=word):
            grow.main([str(tmp_path / "run"), "--foreground", *arguments])
    assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_works_in_a_folder(tmp_path, capsys):
    assert working_in(tmp_path) is None
    with alone_in(tmp_path):
        assert working_in(tmp_path) == os.getpid()
        grow.main([str(tmp_path)])
        assert f"Process {os.getpid()} is growing it already" in capsys.readouterr().out
        with pytest.raises(LeaseHeld), alone_in(tmp_path):
            pass
    assert working_in(tmp_path) is None


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from training.base import grow
grow.main([sys.argv[1], "--phase", "tiny", "--minutes", "0.001", "--foreground", "--eager"])
"""
NEEDED = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "pillow", "jinja2"}
CALLED = {"pyyaml": "yaml", "python-multipart": "multipart", "pillow-heif": "pillow_heif", "typer": "typer"}


@pytest.mark.slow
def test_growing_needs_no_package_that_it_does_not_name(tmp_path):
    """Of those that the project needs elsewhere, none; HTTP clients and the like are theirs to bring."""
    wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    names = {wish.split(">")[0].split("[")[0].strip() for wish in wanted}
    assert names >= NEEDED and all(name in grow.__doc__ for name in NEEDED)
    others = {CALLED.get(name, name.replace("-", "_")) for name in names - NEEDED - {"pyyaml"}}  # diffusers' own
    code = BLOCK.replace("{names}", repr(others | {"skimage", "torchao"}))
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "tiny" / "base" / "model_index.json").exists()


@pytest.mark.slow
def test_two_runs_with_one_seed_agree(tmp_path):
    for name in ("a", "b"):
        train(_order(tmp_path / name, phase=_short(20)))
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dry_run_from_the_bundled_base_survives_two_kills(tmp_path, bundled):
    """The same command three times, in the background, killed twice after it left a base: it ends as a run that was
    never killed."""
    command = [sys.executable, "-m", "training.base.grow", str(tmp_path / "run"), "--phase", "dry", "--eager"]
    folder, reached = tmp_path / "run" / "dry", []
    for _ in range(2):
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        pid = working_in(tmp_path / "run")
        assert f"Process {pid} grows it in the background" in said and os.getsid(pid) == pid
        reached.append(_wait_for_a_base(tmp_path / "run", folder, pid, reached))
        os.kill(pid, signal.SIGKILL)
        _wait_for_the_end(tmp_path / "run")
        assert Editor.load(folder / "base").max_area == DRY.panel**2
    assert 0 < reached[0] < reached[1] < DRY.tuples // DRY.batch
    subprocess.run([*command, "--foreground"], check=True, capture_output=True)
    _edits(folder / "base")
    assert _log(folder)[0]["notes"]["background"] < 0.5  # it began with what the bundled base knows
    train(_order(tmp_path / "straight", phase=DRY, start=BUNDLED))
    killed, straight = _weights(folder), _weights(tmp_path / "straight")
    assert all(torch.equal(killed[key], straight[key]) for key in straight)


def _wait_for_a_base(run: Path, folder: Path, pid: int, before: list[int]) -> int:
    """Follow the log until a base is there that is newer than those before; its step."""
    tail = subprocess.Popen(
        ["tail", "-f", "-n", "+1", f"--pid={pid}", str(run / "grow.log")], stdout=subprocess.PIPE, text=True
    )
    assert tail.stdout is not None
    for _ in tail.stdout:
        base = folder / "base"
        if base.exists() and (step := int(base.resolve().name.split("-")[1])) > max(before, default=0):
            tail.kill()
            return step
    raise AssertionError((run / "grow.log").read_text())


def _wait_for_the_end(run: Path) -> None:
    with (run / PID).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
