"""The size that an AV1 stream will have, before anybody decodes it. Source: the AV1 bitstream specification, 5.5."""

SEQUENCE_HEADER = 1  # type of OBU
OBUS = 8  # a sequence header is among the first


def frame_size(stream: bytes) -> tuple[int, int] | None:
    """Largest width and height, in pixels, of the frames of a stream, from its first bytes; None if it does not say."""
    position = 0
    for _ in range(OBUS):
        if position >= len(stream):
            return None
        head = stream[position]
        position += 2 if head & 4 else 1
        size, position = _leb128(stream, position) if head & 2 else (len(stream) - position, position)
        if head >> 3 & 15 == SEQUENCE_HEADER:
            return _size(_Bits(stream[position : position + size]))
        position += size
    return None


def _leb128(stream: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(stream[position : position + 8]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, position + count + 1
    return value, len(stream)


class _Bits:
    """Numbers of so many bits, one after another; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in data[:256])
        self.position = 0

    def take(self, count: int) -> int:
        taken = self.bits[self.position : self.position + count]
        self.position += count
        return int(taken.ljust(count, "0") or "0", 2)


def _size(bits: _Bits) -> tuple[int, int] | None:
    bits.take(4)  # profile, whether it is a still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        if bits.take(1):  # timing: films
            return None
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delays and bits.take(1):
                bits.take(4)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1
