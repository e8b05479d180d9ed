"""The codec against damaged files: the right code for each, no other exception, no word on stderr, little memory."""

import resource
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.errors import ImageError
from pipelines import codec
from tests import corrupt, crafted

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest resets what the codec has set

LIMIT = 100_000_000
MUTATIONS = 3000


def outcome(data: bytes) -> str | None:
    """The code of the ImageError, None for a photo."""
    try:
        codec.decode(data, LIMIT)
    except ImageError as error:
        assert str(error).endswith(".")
        return error.code
    return None


def header_outcome(data: bytes) -> str | None:
    try:
        codec.read_header(data, LIMIT)
    except ImageError as error:
        return error.code
    return None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [*corrupt.GOOD, *corrupt.BAD])
def test_every_kind_of_file_gets_its_code(kind, seed):
    make = (corrupt.GOOD | corrupt.BAD)[kind]
    _, data, expected = make(np.random.default_rng(seed))
    assert outcome(data) == expected
    assert header_outcome(data) in (None, expected)


@pytest.mark.parametrize("kind", corrupt.GOOD)
def test_what_was_decoded_can_be_written_in_every_format(kind):
    _, data, _ = corrupt.GOOD[kind](np.random.default_rng(0))
    photo = codec.decode(data, LIMIT)
    for format in (None, *codec.OUTPUT_FORMATS):
        assert outcome(codec.encode(photo, photo.image, format)) is None


@pytest.mark.parametrize("make", [crafted.saved("jpg", "JPEG"), crafted.saved("jpg", "JPEG", progressive=True)])
def test_a_flat_jpeg_made_of_zeros_is_no_damage(make):
    """Optimised tables write flat areas as zeros, which elsewhere stand for a lost piece of the file."""
    flat = crafted.file_of(Image.new("RGB", (1600, 1600), (200, 200, 200)), "JPEG", optimize=True)
    assert bytes(64) in flat and outcome(flat) is None


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four accidents: bytes changed, numbers made extreme, pieces moved, lost or doubled."""
    whole = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(whole)) if rng.random() < 0.5 else rng.integers(min(len(whole), 300)))
        length = int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                whole[at] ^= 1 << rng.integers(8)
            case 1:
                whole[at : at + length] = rng.bytes(length)
            case 2:
                whole[at : at + 4] = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"][rng.integers(4)]
            case 3:
                del whole[at : at + length]
            case 4:
                whole[at:at] = whole[at : at + length]
            case _:
                other = int(rng.integers(len(whole)))
                whole[at : at + length] = whole[other : other + length]
    return resealed(bytes(whole)) if rng.random() < 0.7 else bytes(whole)


def resealed(data: bytes) -> bytes:
    """A PNG with right checksums, so that what they would have told comes before the decoder."""
    if not data.startswith(b"\x89PNG"):
        return data
    whole, position = bytearray(data), 8
    while position + 12 <= len(whole):
        end = position + 8 + int.from_bytes(whole[position : position + 4])
        if end + 4 > len(whole):
            break
        whole[end : end + 4] = zlib.crc32(whole[position + 4 : end]).to_bytes(4)
        position = end + 4
    return bytes(whole)


def fuzz(count: int, seed: int) -> None:
    """Decode, look at and write again what accidents make of good files; anything but an ImageError gets out."""
    rng = np.random.default_rng(seed)
    sources = [(kind, make(rng)[1]) for kind, make in corrupt.GOOD.items()]
    for number in range(count):
        kind, source = sources[number % len(sources)]
        data = mutated(source, rng)
        try:
            header_outcome(data)
            photo = codec.decode(data, 4_000_000)
            codec.encode(photo, photo.image)
            codec.encode(photo, photo.image, list(codec.OUTPUT_FORMATS)[number % 4])
        except ImageError:
            continue
        except Exception as error:
            raise AssertionError(f"{kind}, number {number} of seed {seed}: {error!r}") from error


def alone(command: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with this module as `test`."""
    start = "import tests.pipelines.test_corrupt as test;"
    return subprocess.run([sys.executable, "-c", start + command], capture_output=True, text=True, timeout=200)


def test_accidents_end_in_an_image_or_an_image_error_and_nothing_is_printed():
    done = alone(f"test.fuzz({MUTATIONS}, seed=0)")
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def growth(folder: str) -> int:
    """By how many MiB this process grew at most while it was shown every file of a folder."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        outcome(path.read_bytes())
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def test_no_file_takes_much_memory(tmp_path):
    """The largest good one has 900 x 900 pixels; what the bombs claim starts at 60 MiB."""
    corrupt.make_files(tmp_path, 2 * max(len(corrupt.GOOD), len(corrupt.BAD)))
    done = alone(f"print(test.growth({str(tmp_path)!r}))")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50
