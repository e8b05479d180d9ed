"""`POST /v1/images/edits`, as OpenAI's clients send it."""

import base64
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from infra.errors import RequestError
from serving.access import Caller
from serving.access.http import caller_with
from serving.app.desk import SEEDS, Ask, Fields, Order, Result, facts
from serving.app.failures import ANSWERS
from serving.app.intake import Body, form_of
from serving.app.routes.schemas import AdapterFacts, BaseFacts, multipart
from serving.app.services import Services, now

NAMES = Fields(query="image", adapter="model", pairs="image", before="image", after="image")
FORMATS = ("png", "jpeg", "webp", "avif")
MOST = 10  # results of one request, as with OpenAI

FIELDS = {
    "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1,
              "description": "The image to edit. To show the edit by pairs: before, after, before, after, ..., and the"
              " image to edit LAST. `image[]` means the same."},
    "model": {"type": "string", "description": "An adapter: `NAME`, `NAME@3`, `NAME@production`, `NAME:0.7`. The"
              " name of the base where pairs alone show the edit; that may be left out."},
    "prompt": {"type": "string", "description": "Taken, and not used: there is no text encoder here."},
    "n": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 1},
    "size": {"type": "string", "description": "`auto`, or WIDTHxHEIGHT of the image's proportions."},
    "seed": {"type": "integer", "minimum": 0, "maximum": SEEDS - 1, "description": "Of the noise; n results take"
             " this seed and those that follow. Left out, results are those of `edit-transfer apply`."},
    "output_format": {"type": "string", "enum": list(FORMATS), "default": "png"},
    "response_format": {"type": "string", "enum": ["b64_json"], "default": "b64_json"},
}  # fmt: skip


class Image(BaseModel):
    """One result. `seed` is the noise seed that makes it again."""

    b64_json: str
    seed: int


class Facts(BaseModel):
    """What an answer tells beyond OpenAI's."""

    adapter: AdapterFacts | None
    base: BaseFacts
    prompt_used: bool = False
    note: str = "The prompt was not used: this endpoint has no text encoder. Pairs or an adapter show the edit."


class Images(BaseModel):
    """The answer, in OpenAI's shape, with `edit_transfer` added."""

    created: int
    data: list[Image]
    output_format: str
    size: str
    edit_transfer: Facts


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI-compatible"])

    @routes.post(
        "/v1/images/edits",
        response_model=Images,
        responses=ANSWERS,
        openapi_extra=multipart(FIELDS, ["image"]),
        summary="Edit an image with an adapter, or as pairs show",
    )
    async def edit(
        request: Request, caller: Annotated[Caller, Depends(caller_with(services.gate, "transfer"))]
    ) -> Images:
        began = now()
        body = await form_of(request, services.limits)
        ask = _ask(body, services, caller, began)
        order, results = await services.done(ask)
        return _answer(services, order, results, ask.format or "png")

    return routes


def _ask(body: Body, services: Services, caller: Caller, began: float) -> Ask:
    _refuse_what_is_impossible(body)
    files = body.files("image", "image[]")
    if not files:
        raise RequestError("There is no image: send it as a file in the field `image`.", "image")
    if len(files) % 2 == 0:
        raise RequestError(
            f"{len(files)} images are no pairs and an image to edit: send before, after, before, after, ..., and the"
            " image to edit last.",
            "image",
        )
    if len(files) // 2 > services.limits.pairs:
        raise RequestError(f"More than {services.limits.pairs} pairs are not taken.", "image")
    adapter = _adapter(body.text("model"), services.desk.base)
    if adapter is None and len(files) == 1:
        raise RequestError("Name an adapter as `model`, or send pairs that show the edit before the image.", "model")
    return Ask(
        query=files[-1],
        fields=NAMES,
        pairs=list(zip(files[:-1:2], files[1:-1:2], strict=True)),
        adapter=adapter,
        seed=body.whole("seed", 0, SEEDS - 1),
        count=body.whole("n", 1, MOST) or 1,
        size=_size(body.text("size"), services.desk.max_pixels),
        format=body.choice("output_format", FORMATS) or "png",
        seconds=services.limits.seconds,
        began=began,
        tenant=caller.key_id,
    )


def _refuse_what_is_impossible(body: Body) -> None:
    if body.values.get("mask"):
        raise RequestError(
            "A mask cannot be used here: the pairs, or the adapter, show what is edited. Leave it out.", "mask"
        )
    if body.text("response_format") not in (None, "b64_json"):
        raise RequestError("Results are not kept, so there is no URL: ask for `b64_json`.", "response_format")
    if body.yes("stream"):
        raise RequestError("This route does not stream; POST /v1/transfers does, with stream=true.", "stream")


def _adapter(model: str | None, base: str) -> str | None:
    return None if model in (None, base) else model


def _size(size: str | None, max_pixels: int) -> tuple[int, int] | None:
    if size in (None, "auto"):
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", size or "")
    if not found or int(found[1]) * int(found[2]) > max_pixels:
        raise RequestError(f"`size` must be auto, or WIDTHxHEIGHT with at most {max_pixels:,} pixels.", "size")
    return int(found[1]), int(found[2])


def _answer(services: Services, order: Order, results: Sequence[Result], format: str) -> Images:
    run = services.desk.description
    told: dict[str, Any] = {
        "adapter": facts(order.worn),
        "base": {"name": services.desk.base, "revision": run.revision},
    }
    return Images(
        created=int(time.time()),
        data=[Image(b64_json=base64.b64encode(each.data).decode(), seed=each.seed) for each in results],
        output_format=format,
        size="{}x{}".format(*results[0].size),
        edit_transfer=Facts(**told),
    )
