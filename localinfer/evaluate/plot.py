"""A PNG picture of several models: bits a weight to the right, mean KL divergence upwards, on a logarithmic scale."""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import UsageError
from localinfer.evaluate.glyphs import draw
from localinfer.evaluate.quality import Quality
from localinfer.formats.durable import write_bytes

WIDTH, HEIGHT = 960, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 40, 60, 80
_LETTER = 3
"""Pixels of the picture for a pixel of a letter."""

_SMALLEST = 1e-6
"""Divergences below are drawn here: a logarithm knows no zero."""

Colour = tuple[int, int, int]
_INK, _GRID = (40, 40, 40), (222, 222, 222)
_COLOURS: tuple[Colour, ...] = (
    (31, 90, 180),
    (200, 80, 30),
    (30, 130, 70),
    (140, 60, 150),
    (170, 130, 0),
    (0, 130, 150),
)


def plot(qualities: Sequence[Quality], path: Path) -> None:
    """Write the picture to `path`. Raises `UsageError` for another ending than .png, or without a reference."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"the picture would be a PNG, but `{path.name}` says otherwise", hint="end its name in .png")
    points = [
        (quality.bits_per_weight, max(quality.kld_mean, _SMALLEST), quality.kld_se or 0.0, quality.model)
        for quality in qualities
        if quality.kld_mean is not None
    ]
    if not points:
        raise UsageError("there is no divergence to draw", hint="name the original: `--against REF`")
    write_bytes(path, png(_Canvas(points).pixels))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels [height, width, 3] as a PNG file."""
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


class _Canvas:
    """The picture while it is drawn."""

    def __init__(self, points: Sequence[tuple[float, float, float, str]]) -> None:
        self.pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        bits = [point[0] for point in points]
        self._first, self._last = math.floor(min(bits) - 0.25), math.ceil(max(bits) + 0.25)
        self._low = math.floor(math.log10(min(kld for _, kld, _, _ in points)))
        self._high = max(math.ceil(math.log10(max(kld + error for _, kld, error, _ in points))), self._low + 1)
        self._axes()
        taken: list[tuple[int, int, int]] = []
        for number, (bit, kld, error, name) in enumerate(points):
            self._point(bit, kld, error, name, _COLOURS[number % len(_COLOURS)], taken)

    def _x(self, bits: float) -> int:
        return round(_LEFT + (bits - self._first) / (self._last - self._first) * (WIDTH - _LEFT - _RIGHT))

    def _y(self, kld: float) -> int:
        share = (math.log10(max(kld, 10.0**self._low)) - self._low) / (self._high - self._low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP))

    def _axes(self) -> None:
        for bits in range(self._first, self._last + 1):
            self._box(self._x(bits), _TOP, 1, HEIGHT - _TOP - _BOTTOM, _GRID)
            self._text(str(bits), self._x(bits) - 6, HEIGHT - _BOTTOM + 12)
        for power in range(self._low, self._high + 1):
            for step in (1, 2, 5) if power < self._high else (1,):
                y = self._y(step * 10.0**power)
                self._box(_LEFT, y, WIDTH - _LEFT - _RIGHT, 1, _GRID)
                label = f"{step * 10.0**power:.10f}".rstrip("0").rstrip(".")
                self._text(label, _LEFT - 10 - 4 * _LETTER * len(label), y - 7)
        self._box(_LEFT, _TOP, 2, HEIGHT - _TOP - _BOTTOM, _INK)
        self._box(_LEFT, HEIGHT - _BOTTOM, WIDTH - _LEFT - _RIGHT, 2, _INK)
        self._text("mean KL divergence, nats a token", 20, 20)
        self._text("bits a weight, all weights as stored", WIDTH // 2 - 200, HEIGHT - 35)

    def _point(
        self, bits: float, kld: float, error: float, name: str, colour: Colour, taken: list[tuple[int, int, int]]
    ) -> None:
        """A square, its standard error as a bar, its name where there is room."""
        x, y = self._x(bits), self._y(kld)
        top, bottom = self._y(kld + error), self._y(max(kld - error, _SMALLEST))
        self._box(x - 1, top, 2, max(1, bottom - top), colour)
        self._box(x - 5, y - 5, 11, 11, colour)
        shown = name if len(name) <= 40 else "…" + name[-39:]
        wide = 4 * _LETTER * len(shown)
        left = x + 14 if x + 14 + wide < WIDTH else x - 14 - wide
        line = y - 7
        while any(abs(line - at) < 20 and left < end and start < left + wide for start, end, at in taken):
            line += 4
        taken.append((left, left + wide, line))
        self._text(shown, left, line, colour)

    def _box(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        self.pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = colour

    def _text(self, text: str, x: int, y: int, colour: Colour = _INK) -> None:
        letters = np.kron(draw(text), np.ones((_LETTER, _LETTER), np.bool_))
        x, y = max(x, 0), max(y, 0)
        place = self.pixels[y : y + letters.shape[0], x : x + letters.shape[1]]
        place[letters[: place.shape[0], : place.shape[1]]] = colour
