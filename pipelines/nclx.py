"""Colours that a file names by number (HEIF, AVIF), as a profile that colour management understands.

    profile_of(primaries, transfer)   an ICC profile, None where sRGB is close enough
    is_hdr(transfer)                  brighter than white can be: its way to sRGB leads over a shoulder, and not back

Sources: ISO/IEC 23091-2 for the numbers, ITU-R BT.2100 for PQ and HLG, BT.2408 for where white is, ICC.1:2022.
"""

import struct
from functools import lru_cache

import numpy as np

P3, BT2020 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
PRIMARIES = {9: BT2020, 11: P3, 12: P3}
LINEAR, PQ, HLG = 8, 16, 18
WHITE = np.array([0.95047, 1.0, 1.08883])  # D65
PAPER = np.array([0.96422, 1.0, 0.82521])  # D50, to which profiles refer
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SDR_WHITE, HLG_PEAK = 203, 1000  # cd/m²
KNEE = 0.8  # of white; what is brighter is pressed together above it
STEPS = 4096  # of a curve


def is_hdr(transfer: int) -> bool:
    """Whether it is PQ or HLG."""
    return transfer in (PQ, HLG)


@lru_cache(16)
def profile_of(primaries: int, transfer: int) -> bytes | None:
    """A matrix profile for such colours. Unknown numbers count as sRGB's."""
    if primaries not in PRIMARIES and transfer not in (LINEAR, PQ, HLG):
        return None
    columns = _to_paper(PRIMARIES.get(primaries, BT709)).T
    tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    curve = _curve(_light(np.linspace(0, 1, STEPS), transfer))
    text = b"text" + bytes(4) + b"None\0"
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"nclx\0" + bytes(78)
    tags |= {b"wtpt": _xyz(PAPER), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"cprt": text, b"desc": name}
    return _profile(tags)


def _light(value: np.ndarray, transfer: int) -> np.ndarray:
    """Linear light of a signal from 0 to 1; 1 is the white of a page."""
    if transfer == LINEAR:
        return value
    if transfer == PQ:
        root = value ** (1 / 78.84375)
        share = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return _shoulder(10_000 / SDR_WHITE * share)
    if transfer == HLG:
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return _shoulder(HLG_PEAK / SDR_WHITE * scene**1.2)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _shoulder(light: np.ndarray) -> np.ndarray:
    return np.where(light <= KNEE, light, KNEE + (1 - KNEE) * (1 - np.exp(-(light - KNEE) / (1 - KNEE))))


def _to_paper(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Columns: XYZ of red, green and blue under D50."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    scaled = xyz * np.linalg.solve(xyz, WHITE)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ PAPER / (BRADFORD @ WHITE)) @ BRADFORD
    return adapted @ scaled


def _xyz(value: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(each * 65536) for each in value))


def _curve(light: np.ndarray) -> bytes:
    return b"curv" + struct.pack(">II", 0, len(light)) + np.round(light * 65535).astype(">u2").tobytes()


def _profile(tags: dict[bytes, bytes]) -> bytes:
    index, body, places = b"", b"", dict[bytes, int]()
    for name, data in tags.items():
        if data not in places:
            places[data] = 132 + 12 * len(tags) + len(body)
            body += data + bytes(-len(data) % 4)
        index += name + struct.pack(">II", places[data], len(data))
    whole = struct.pack(">I", len(tags)) + index + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(whole), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(each * 65536) for each in PAPER))
    return head.ljust(128, b"\0") + whole
