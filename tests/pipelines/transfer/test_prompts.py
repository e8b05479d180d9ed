import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import UsageError
from pipelines import texts
from pipelines.transfer import Editor
from pipelines.transfer.bases import PROMPT
from pipelines.transfer.prompts import GUIDANCE, NEGATIVE, POOLED, TOKENS, embed, parsed
from tests.tiny import CONTEXT, make_tiny_base, make_tiny_flux1, tiny_transformer
from tests.tiny import POOLED as POOLED_WIDTH

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


@pytest.fixture(scope="module")
def speaking1(tmp_path_factory):
    """The same of FLUX.1: CLIP says one embedding of the whole, T5 one for each token."""
    folder = make_tiny_flux1(tmp_path_factory.mktemp("speaking1"))
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*ends, *sorted(ByteLevel.alphabet()), *(f"{letter}</w>" for letter in sorted(ByteLevel.alphabet()))]
    clip = {token: index for index, token in enumerate(words)}
    CLIPTokenizerFast(vocab=clip, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((chr(97 + n), -3.0) for n in range(26))]
    T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512).save_pretrained(folder / "tokenizer_2")
    torch.manual_seed(0)
    few = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(vocab_size=len(clip), hidden_size=POOLED_WIDTH, **few, **ids)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    config = T5Config(vocab_size=len(pieces), d_model=CONTEXT, d_kv=8, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder_2")
    parts = {
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizerFast"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline", **parts}))
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


def test_both_encoders_of_flux1_are_asked(speaking1, tmp_path):
    file = tmp_path / "arms.safetensors"
    told = run("embed", "raise the sleeves", file, "--base", speaking1)
    assert told.exit_code == 0, told.output
    assert "it/s" not in told.stderr and "Loading pipeline" not in told.stderr
    written, other = load_file(file), embed(speaking1, "close the bag")
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == {
        TOKENS: (1, 512, CONTEXT),
        POOLED: (1, POOLED_WIDTH),
    }
    assert all(not torch.equal(tensor, other[name]) for name, tensor in written.items())
    image = Image.new("RGB", (64, 64), "red")
    said = texts.read(texts.texts_for(str(file), speaking1).asked, speaking1)
    assert edited(speaking1, image, said) != edited(speaking1, image, None)


def test_a_text_is_kept_with_the_base_which_is_used_with_it(speaking, tmp_path):
    base = shutil.copytree(speaking, tmp_path / "base")
    tiny = tiny_transformer()
    type(tiny).from_config(tiny.config, joint_attention_dim=3 * WIDTH).save_pretrained(base / "transformer")
    image = Image.new("RGB", (64, 64), "red")
    silent = edited(base, image, "base")
    assert silent == edited(base, image, None) and texts.of_base(base) is None
    told = run("embed", "Raise the sleeves", "--store", "--base", base)
    assert told.exit_code == 0 and PROMPT in told.stdout, told.output
    said = embed(speaking, "Raise the sleeves")[TOKENS]
    assert edited(base, image, "base") == edited(base, image, said) != silent
    assert edited(base, image, None) == silent, "no text can be asked for"
    save_file({TOKENS: torch.zeros(1, 4, CONTEXT + 1)}, base / PROMPT)
    with pytest.raises(UsageError, match="wide, but the base takes"):
        texts.of_base(base)


def test_a_guided_text_counts_more_except_on_a_distilled_base(speaking, tmp_path):
    base = shutil.copytree(speaking, tmp_path / "base")
    file, plain, image = (
        tmp_path / "arms.safetensors",
        tmp_path / "plain.safetensors",
        Image.new("RGB", (64, 64), "red"),
    )
    told = run("embed", "Raise the sleeves", file, "--base", base, "--guidance", "4", "--negative", "blurred")
    assert told.exit_code == 0, told.output
    written = load_file(file)
    assert torch.equal(written[NEGATIVE + TOKENS], embed(base, "blurred")[TOKENS]) and written[GUIDANCE] == 4
    narrow = {name: tensor[..., :CONTEXT].contiguous() if tensor.ndim else tensor for name, tensor in written.items()}
    guided, unguided = parsed(save(narrow), "text"), parsed(save({TOKENS: narrow[TOKENS]}), "text")
    assert edited(base, image, guided) != edited(base, image, unguided)
    (base / "model_index.json").write_text(json.dumps({"is_distilled": True}))
    assert edited(base, image, guided) == edited(base, image, unguided)
    refused = run("embed", "Raise the sleeves", plain, "--base", base, "--guidance", "4")
    assert refused.exit_code == 2 and "is distilled" in refused.stderr and not plain.exists()


@pytest.mark.parametrize("where", [[], ["a.safetensors", "--store"]])
def test_embeddings_go_to_one_place(speaking, where):
    told = run("embed", "Raise the sleeves", *where, "--base", speaking)
    assert told.exit_code == 2 and "--store" in told.stderr and "FILE" in told.stderr


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
    assert len({texts.texts_for(str(file), speaking).asked for file in files}) == 2
    image = Image.new("RGB", (64, 64), "red")
    results = [edited(speaking, image, load_file(file)[TOKENS]) for file in files]
    assert results[0] != results[1]
    assert results[0] == edited(speaking, image, load_file(files[0])[TOKENS])


def edited(base, image, prompt):
    editor = Editor.load(base, prompt_embeds=prompt)
    return editor.edit([image], editor.remember([(image, image)]), seeds=[0])[0].tobytes()
