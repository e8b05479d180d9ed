import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM
from typer.testing import CliRunner

from infra.cli import app
from pipelines.catalog.variants import prompt_digest
from pipelines.transfer import Editor
from pipelines.transfer.prompts import TOKENS, embed
from tests.tiny import CONTEXT, make_tiny_base

WIDTH = 24  # of the text encoder; three of its layers make a token of the prompt
PARTS = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "Qwen2TokenizerFast"],
}


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A small base with a text encoder of the real class and a tokenizer of single bytes."""
    folder = make_tiny_base(tmp_path_factory.mktemp("speaking"))
    words = {token: index for index, token in enumerate(["<|endoftext|>", *sorted(ByteLevel.alphabet())])}
    special = dict.fromkeys(("pad_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = Qwen2TokenizerFast(vocab=words, merges=[], **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline", **PARTS}))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_text_becomes_what_the_text_encoder_makes_of_it(speaking, tmp_path):
    file = tmp_path / "made" / "arms.safetensors"
    told = run("embed", "Raise the sleeves", file, "--base", speaking)
    assert told.exit_code == 0, told.output
    assert str(file) in told.stdout.replace("\n", "")
    written, other = load_file(file)[TOKENS], embed(speaking, "Close the bag")[TOKENS]
    assert written.shape == (1, 512, 3 * WIDTH)
    assert torch.equal(written, embed(speaking, "Raise the sleeves")[TOKENS])
    assert not torch.equal(written, other)


def test_a_base_without_a_text_encoder_is_one_sentence(tmp_path):
    told = run("embed", "Raise the sleeves", tmp_path / "a.safetensors", "--base", make_tiny_base(tmp_path / "base"))
    assert told.exit_code == 2 and "text_encoder" in told.stderr and "Traceback" not in told.stderr
    assert not (tmp_path / "a.safetensors").exists()


def test_only_safetensors_are_written(speaking, tmp_path):
    told = run("embed", "Raise the sleeves", tmp_path / "a.txt", "--base", speaking)
    assert told.exit_code == 2 and ".safetensors" in told.stderr


def test_a_prompt_of_another_width_stops_a_job_before_it_starts(speaking, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    file = tmp_path / "prompt.safetensors"
    save_file({TOKENS: torch.zeros(1, 4, CONTEXT + 1)}, file)
    pair = ("--pair", tmp_path / "photo.png", tmp_path / "photo.png")
    places = ("--input", tmp_path / "photo.png", "--output", tmp_path / "out")
    told = run("apply", *pair, *places, "--base", speaking, "--prompt", file, "--dry-run")
    assert told.exit_code == 2 and "edit-transfer embed" in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_prompt_decides_the_work_and_the_result(speaking, tmp_path):
    torch.manual_seed(1)
    files = [tmp_path / "one.safetensors", tmp_path / "other.safetensors"]
    for file in files:
        save_file({TOKENS: torch.randn(1, 4, CONTEXT)}, file)
    assert len({prompt_digest(str(file), CONTEXT) for file in files}) == 2
    image = Image.new("RGB", (64, 64), "red")
    results = [edited(speaking, image, load_file(file)[TOKENS]) for file in files]
    assert results[0] != results[1]
    assert results[0] == edited(speaking, image, load_file(files[0])[TOKENS])


def edited(base, image, prompt):
    editor = Editor.load(base, prompt_embeds=prompt)
    return editor.edit([image], editor.remember([(image, image)]), seeds=[0])[0].tobytes()
