"""Bodies of requests, as sent: forms and JSON, files and data URIs. Nothing is decoded here, and no URL is fetched."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from infra.errors import RequestError, TooLarge, WrongMedia
from serving.app.options import Limits

DATA_URI = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.ASCII)
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]},]', re.DOTALL)  # linear, whatever the text
FORM_PART = 64 * 1024  # bytes of a part that is no file


@dataclass(frozen=True)
class Body:
    """A request's fields by name, in the order in which they came. Files are bytes."""

    values: Mapping[str, list[Any]]

    def files(self, *names: str) -> list[bytes]:
        """All files under these names. Raises RequestError for a text where a file should be."""
        return [_bytes(name, value) for name in names for value in self.values.get(name, ())]

    def one(self, name: str) -> Any:
        """The value of a field, None if it is not there or empty. Raises RequestError for several."""
        given = self.values.get(name, [])
        if len(given) > 1:
            raise RequestError(f"`{name}` is given {len(given)} times. Give it once.", name)
        return None if not given or given[0] in ("", None) else given[0]

    def text(self, name: str) -> str | None:
        """A text. Raises RequestError for anything else."""
        value = self.one(name)
        if value is not None and not isinstance(value, str):
            raise RequestError(f"`{name}` must be a text.", name)
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`. Raises RequestError."""
        value = self.one(name)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value.strip()):
            value = int(value)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise RequestError(f"`{name}` must be a whole number from {low} to {high}.", name)
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`. Raises RequestError."""
        value = self.one(name)
        if isinstance(value, str) and len(value) <= 40:
            try:
                value = float(value)
            except ValueError:
                value = "none"
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RequestError(f"`{name}` must be a number from {low:g} to {high:g}.", name)
        return float(value)

    def yes(self, name: str) -> bool:
        """A yes or no, no by default. Raises RequestError."""
        value = self.one(name)
        told = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower(), value)
        if value is not None and not isinstance(told, bool):
            raise RequestError(f"`{name}` must be true or false.", name)
        return bool(told)

    def choice(self, name: str, known: tuple[str, ...]) -> str | None:
        """One of the known words. Raises RequestError."""
        value = self.text(name)
        if value is not None and value not in known:
            raise RequestError(f"`{name}` must be one of {', '.join(known)}.", name)
        return value


async def form_of(request: Request, limits: Limits) -> Body:
    """The fields of a multipart form. Raises WrongMedia, TooLarge, TooSlow, and RequestError for a broken form."""
    if _media_type(request) != "multipart/form-data":
        raise WrongMedia("Send the images as multipart/form-data.")
    try:
        form = await request.form(max_files=limits.files, max_fields=limits.fields, max_part_size=FORM_PART)
    except HTTPException as error:
        raise RequestError(f"The form cannot be read: {error.detail}") from None
    except (ValueError, LookupError):  # names or headers of parts in no known encoding
        raise RequestError("The form cannot be read: one of its parts is broken.") from None
    try:
        return Body(await _read(form))
    finally:
        await form.close()


async def _read(form: FormData) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        values.setdefault(name, []).append(await value.read() if isinstance(value, UploadFile) else value)
    return values


async def json_of(request: Request, limits: Limits) -> dict[str, Any]:
    """A JSON object. Raises WrongMedia, TooLarge, TooSlow, and RequestError for anything else."""
    if _media_type(request) != "application/json":
        raise WrongMedia("Send multipart/form-data or application/json.")
    return await asyncio.to_thread(_parsed, await request.body(), limits)


def _parsed(data: bytes, limits: Limits) -> dict[str, Any]:
    _check_shape(data, limits)
    try:
        told = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RequestError("The body is not valid JSON.") from None
    if not isinstance(told, dict):
        raise RequestError("The body must be a JSON object.")
    return told


def image_in(text: Any, name: str) -> bytes:
    """The bytes of an image given as base64 or data URI. Raises RequestError."""
    if not isinstance(text, str) or not text:
        raise RequestError(f"`{name}` must be an image, as base64 or as a data: URI.", name)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text):
        raise RequestError(f"`{name}` is a URL. Nothing is fetched here: send the image itself, as base64.", name)
    found = DATA_URI.match(text[:200])
    try:
        return base64.b64decode(text[found.end() :] if found else text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"`{name}` is neither base64 nor a data: URI with base64.", name) from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise RequestError(f"`{name}` must be a file of the form, with a file name.", name)
    return value


def _check_shape(data: bytes, limits: Limits) -> None:
    """Raise TooLarge for nesting, and for numbers of values, that only an attack needs: parsing would take long."""
    depth = 0
    for count, token in enumerate(TOKEN.finditer(data)):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > limits.json_depth or count > limits.json_values:
            raise TooLarge(
                f"The JSON has more than {limits.json_depth} levels, or {limits.json_values} values: more than an edit"
                " needs."
            )


def _refuse(constant: str) -> None:
    raise ValueError(constant)
