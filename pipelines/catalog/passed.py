"""What a listing passes over: how much of it, of what kind, and what can be done about it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from pipelines.catalog.tables import is_table

LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}  # of file managers: not worth a word


@dataclass(frozen=True)
class Kind:
    """One kind of file: `one` and `many` name it, `advice` says what to do; {} is its pronoun."""

    one: str
    many: str
    advice: str
    extensions: frozenset[str]


def _kind(one: str, many: str, advice: str, extensions: str) -> Kind:
    return Kind(one, many, advice, frozenset(f".{each}" for each in extensions.split()))


KINDS = {
    "raw": _kind(
        "camera raw file", "camera raw files", "develop {} first",
        "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    ),
    "vector": _kind("vector drawing", "vector drawings", "export {} as PNG first", "svg svgz ai eps cdr wmf emf"),
    "icon": _kind("icon", "icons", "export {} as PNG first", "ico icns cur"),
    "other": _kind(
        "image in a format that is not read", "images in formats that are not read", "convert {} to PNG or TIFF first",
        "tga exr hdr dds pcx ppm pgm pbm pnm xcf psb jxr wdp j2k jpx jpf jpc",
    ),
    "film": _kind("film", "films", "only photos are edited", "mov mp4 m4v avi mkv webm 3gp mts m2ts wmv"),
    "sidecar": _kind(
        "sidecar file", "sidecar files", "changes described in {} are not applied", "xmp aae thm pp3 dop cos on1",
    ),
}  # fmt: skip
IGNORED_NAMED = 3
BY_EXTENSION = {extension: name for name, kind in KINDS.items() for extension in kind.extensions}


@dataclass
class Passed:
    """What a listing passed over, counted as it goes.

    ignored   files that are no images, the first few by name
    kinds     how many files there are of each of KINDS
    repeated  rows of a table that name a URI again
    blank     rows of a table that name none
    left_out  files that lie in the output folder
    """

    ignored: int = 0
    names: tuple[str, ...] = ()
    repeated: int = 0
    blank: int = 0
    left_out: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def ignore(self, uri: str) -> None:
        """Count a file that is no image."""
        path = PurePosixPath(uri)
        kind = BY_EXTENSION.get(path.suffix.lower())
        if kind:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        elif path.name.lower() not in LITTER:
            self.ignored += 1
            if len(self.names) < IGNORED_NAMED:
                self.names = (*self.names, path.name)

    def told(self) -> list[str]:
        """A sentence for each kind of thing, none where everything was listed."""
        more = ", …" if self.ignored > len(self.names) else ""
        counts = (
            (self.ignored, f"Not images, ignored: {self.ignored} ({', '.join(self.names)}{more})"),
            *((1, sentence) for sentence in self._kinds_told()),
            (self.left_out, f"Inside the output folder, left out: {self.left_out}"),
            (self.repeated, f"Rows that name an image again: {self.repeated}"),
            (self.blank, f"Rows without a uri: {self.blank}"),
        )
        return [sentence for count, sentence in counts if count]

    def hint(self) -> str:
        """What was there instead, where there were no images; to be added to a sentence."""
        if self.blank:
            return f" Rows with nothing in the column `uri`: {self.blank}."
        others = f"{self.ignored} other files are no images, e.g. {self.names[0]}" if self.ignored else ""
        table = "To edit what a table names, give the table itself" if any(map(is_table, self.names)) else ""
        return "".join(f" {each}." for each in (*self._kinds_told(), others, table) if each)

    def _kinds_told(self) -> list[str]:
        """`12 camera raw files: develop them first`."""
        found = ((self.kinds[name], kind) for name, kind in KINDS.items() if name in self.kinds)
        return [
            f"{count:,} {kind.one}: {kind.advice.format('it')}"
            if count == 1
            else f"{count:,} {kind.many}: {kind.advice.format('them')}"
            for count, kind in found
        ]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Passed":
        """What `to_json` wrote, in this version or an earlier one."""
        told = json.loads(data)
        return cls(**(told | {"names": tuple(told["names"])}))
