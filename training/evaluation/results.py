"""Results of any system, as files: `<case>.png` with the right pair, `<case>.wrong.png` with the wrong one.

The second kind is for those who want to know whether the pair is read; without any of them, scores that compare with
the wrong pair are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from infra.errors import ImageError, OutputError, UsageError
from pipelines import codec
from training.evaluation.cases import Trial
from training.evaluation.suite import Shown
from training.evaluation.systems import Answer, Answers, Steps
from training.sheet import png

WRONG = ".wrong"
SUFFIXES = {suffix for suffixes in codec.EXTENSIONS.values() for suffix in suffixes}
SQUARE = 0.01  # of its side: by so much a square picture may be off
PAPER = "white"  # what shows through transparent pixels
NAMED = 20  # faults that are listed; the others are counted


@dataclass(frozen=True)
class FromFiles:
    """A system that is known by its results; `files` are those that can be scored, by name."""

    files: dict[str, Path]
    side: int
    max_pixels: int

    def answer(self, trial: Trial, counts: tuple[Steps, ...]) -> list[Answers]:
        return [dict.fromkeys(counts, self._of(case.id)) if case.id in self.files else {} for case in trial]

    def _of(self, case: str) -> Answer:
        wrong = self.files.get(case + WRONG)
        return Answer(self._read(self.files[case]), self._read(wrong) if wrong else None)

    def _read(self, file: Path) -> Image.Image:
        return read_result(file, self.side, self.max_pixels).image


@dataclass(frozen=True)
class Result:
    """A picture as it is scored, and what had to be done to it."""

    image: Image.Image
    resized: bool
    flattened: bool


@dataclass
class Findings:
    """What a folder holds of the results that are wanted: what can be scored, what not and why, what was done to it."""

    files: dict[str, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    flattened: list[str] = field(default_factory=list)

    def notes(self, side: int) -> Iterator[str]:
        """A sentence for each kind of thing that was done to results."""
        if self.resized:
            yield f"{_counted(self.resized)} resized to {side} x {side} pixels, the size of the cases."
        if self.flattened:
            yield f"{_counted(self.flattened)} put on white: they have transparent pixels."


def read_results(
    folder: Path, wanted: Sequence[str], known: Iterable[str], *, side: int, max_pixels: int, partial: bool
) -> tuple[FromFiles, list[str]]:
    """The results of the `wanted` cases, and sentences about them; every file is decoded once, before any is scored.

    Those of other `known` cases are passed over. `partial`: score what there is.

    Raises:
        UsageError: files are missing, broken, of another shape, double or of no case, unless `partial`; or there are
            none at all.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} with results.")
    found = examine(folder, wanted, known, side, max_pixels)
    usable = sum(not name.endswith(WRONG) for name in found.files)
    if found.faults and not (partial and usable):
        way = "Mend that" + (", or score the rest with --partial." if usable else ": there is nothing else to score.")
        raise UsageError(f"The results in {folder} cannot be scored as they are.\n{_listed(found.faults)}\n{way}")
    told = [f"{usable} of {len(wanted)} cases are scored.\n{_listed(found.faults)}"] if found.faults else []
    return FromFiles(found.files, side, max_pixels), [*told, *found.notes(side)]


def examine(folder: Path, wanted: Sequence[str], known: Iterable[str], side: int, max_pixels: int) -> Findings:
    """Look at every file."""
    found, by_name = Findings(), _by_name(folder)
    tried_wrong = any(case + WRONG in by_name for case in wanted)
    for name in [case + kind for case in wanted for kind in (("", WRONG) if tried_wrong else ("",))]:
        _examine(name, by_name.get(name, []), found, side, max_pixels)
    for name in sorted(by_name.keys() - {case + kind for case in known for kind in ("", WRONG)}):
        found.faults += [f"{file.name} belongs to no case of the benchmark." for file in by_name[name]]
    return found


def _examine(name: str, files: list[Path], found: Findings, side: int, max_pixels: int) -> None:
    if len(files) != 1:
        names = " and ".join(file.name for file in files)
        found.faults.append(f"{names} are one result too many: keep one." if files else f"{name}.png is missing.")
        return
    try:
        result = read_result(files[0], side, max_pixels)
    except ImageError as error:
        found.faults.append(f"{files[0].name}: {error}")
        return
    found.files[name] = files[0]
    found.resized += [files[0].name] * result.resized
    found.flattened += [files[0].name] * result.flattened


def read_result(file: Path, side: int, max_pixels: int) -> Result:
    """A picture in RGB, upright, without transparency, at the size of the cases.

    Raises:
        ImageError: it cannot be read, or is not square as the cases are.
    """
    try:
        photo = codec.decode(file.read_bytes(), max_pixels)
    except OSError as error:
        raise ImageError(f"It cannot be read: {error.strerror}.") from error
    image, alpha = photo.image, photo.alpha
    if abs(image.width - image.height) > SQUARE * max(image.size):
        raise ImageError(f"It has {image.width} x {image.height} pixels, where the query is square.", "framing")
    transparent = alpha is not None and alpha.getextrema() != (255, 255)
    if alpha and transparent:
        image = Image.composite(image, Image.new("RGB", image.size, PAPER), alpha)
    resized = image.size != (side, side)
    return Result(image.resize((side, side), Image.Resampling.LANCZOS) if resized else image, resized, transparent)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """The pictures in a folder, by name without extension; hidden files and other kinds are nobody's results."""
    by_name: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            by_name.setdefault(file.stem, []).append(file)
    return by_name


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - NAMED
    return "\n".join(f"  {each}" for each in [*sentences[:NAMED], *([f"And {more} more."] if more > 0 else [])])


def _counted(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"


@dataclass(frozen=True)
class Saver:
    """Writes results where `read_results` finds them."""

    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise OutputError(f"{self.folder} is not empty. Give a new folder for the results.")
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written: {error.strerror}. Give another place.") from error

    def add(self, shown: Shown) -> None:
        self._write(shown.id, shown.right)
        if shown.wrong:
            self._write(shown.id + WRONG, shown.wrong)

    def _write(self, name: str, image: Image.Image) -> None:
        (self.folder / f"{name}.png").write_bytes(png(image))
