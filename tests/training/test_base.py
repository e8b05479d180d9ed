"""The making of the miniature: the written encoder, the seeded loop, resuming."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from infra.errors import UsageError
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import layout
from training.base import grow
from training.base.architecture import HEAD, new_scheduler, new_transformer, new_vae
from training.base.batches import draw_batch
from training.base.blockpca import LinearEncoder, start_decoder, write_encoder
from training.base.heads import PairReader, Preview
from training.base.recipe import PHASES, Autoencoder
from training.base.transfer import CHANGED, Tally, TransferLoss
from training.base.vae import draw_images, make_autoencoder, reconstruction_psnr
from training.base.widen import widen
from training.loop import Schedule, Trainer, generator_for

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


def test_an_autoencoder_is_made_and_appears_when_it_is_done(tmp_path):
    recipe, said = Autoencoder(steps=2, batch=12, rate=1e-3, ema=0.9), []
    make_autoencoder(tmp_path / "work", tmp_path / "vae", recipe, 0, "cpu", said.append)
    assert "dB" in said[-1] and (tmp_path / "vae" / "config.json").exists()
    base = grow._parse([str(tmp_path), "--phase", "tiny"])
    assert next(grow._orders(base)).vae == tmp_path / "vae"
