"""Colour profiles: from what the pixels of a file came in to sRGB, and back."""

import io

from PIL import Image, ImageCms


def space_of(profile: bytes) -> str:
    """`RGB`, `CMYK`, `GRAY` or another space that a profile describes."""
    return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()


def usable_profile(data: bytes | None, mode: str) -> bytes | None:
    """The profile, if it can be read and fits the pixels; sRGB is assumed otherwise."""
    if not data:
        return None
    try:
        space = space_of(data)
        fits = space == {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}[mode] or (space, mode) == ("RGB", "L")
        converted(Image.new(mode, (1, 1)), data, "RGB", to_srgb=True)
    except Exception:  # lcms reports damage in several ways, none of them worth an image
        return None
    return data if fits else None


def leads_back(profile: bytes) -> bool:
    """Whether the result can have this profile again: those of scanners and cameras may only lead one way."""
    space = space_of(profile)
    try:
        converted(Image.new("RGB", (1, 1)), profile, "L" if space == "GRAY" else space, to_srgb=False)
    except Exception:  # as above
        return False
    return True


def converted(image: Image.Image, profile: bytes | None, mode: str, *, to_srgb: bool) -> Image.Image:
    """The image in another colour space: from the profile to sRGB, or back."""
    if profile is None:
        return image.convert(mode)
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    ours = ImageCms.createProfile("sRGB")
    source, target = (theirs, ours) if to_srgb else (ours, theirs)
    if to_srgb and image.mode == "L" and space_of(profile) == "RGB":
        image = image.convert("RGB")
    there = ImageCms.profileToProfile(image, source, target, outputMode=mode)
    assert there is not None  # only in-place conversion returns None
    return there
