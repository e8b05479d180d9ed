"""How a result compares with its query, in numbers that cost nothing to take."""

from PIL import Image, ImageChops, ImageStat


def change(query: Image.Image, result: Image.Image) -> float:
    """Mean absolute difference of two RGB images of one size, from 0 (untouched) to 1."""
    return sum(ImageStat.Stat(ImageChops.difference(query, result)).mean) / 3 / 255
