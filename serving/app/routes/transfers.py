"""`POST /v1/transfers`: pairs sent along, seeds, steps, files or JSON with scores, progress as it happens."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.responses import JSONResponse

from infra.errors import RequestError
from serving.access import Caller
from serving.access.http import caller_with
from serving.app.desk import SEEDS, Ask, Fields, Order, Result, facts
from serving.app.failures import ANSWERS
from serving.app.intake import Body, form_of, image_in, json_of
from serving.app.routes.schemas import AdapterFacts, BaseFacts, multipart_or_json
from serving.app.services import Services, now
from serving.engine.request import Edited, Progress

FORMATS = ("png", "jpeg", "webp", "avif")
IN_FORM, IN_JSON = Fields(), Fields(pairs="pairs", before="pairs.{}.before", after="pairs.{}.after")
STRONGEST = 10.0  # scale of an adapter

OPTIONS: dict[str, Any] = {
    "adapter": {"type": "string", "description": "`NAME`, `NAME@3`, `NAME@production`, `NAME:0.7`. Its own pairs show"
                " the edit, pairs sent along come after them."},
    "scale": {"type": "number", "minimum": -STRONGEST, "maximum": STRONGEST, "default": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": SEEDS - 1, "description": "Of the noise. Left out, the"
             " result is that of `edit-transfer apply`."},
    "steps": {"type": "integer", "minimum": 1, "description": "Denoising steps; the base's own by default."},
    "output_format": {"type": "string", "enum": list(FORMATS), "description": "By default what `Accept` asks for,"
                      " else the query's own (JPEG for HEIC)."},
    "restore": {"type": "boolean", "default": False, "description": "Full resolution: what the edit did not touch"
                " stays the query's, pixel for pixel in a lossless format."},
    "response_format": {"type": "string", "enum": ["image", "json"], "description": "The file itself, or JSON with"
                        " scores and timings. `Accept: application/json` asks for JSON too."},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds it may take."},
    "stream": {"type": "boolean", "default": False, "description": "Server-sent events: `progress`, then `result` or"
               " `error`."},
    "previews": {"type": "boolean", "default": False, "description": "Progress shows what the result looks like so"
                 " far."},
}  # fmt: skip
FILE = {"type": "string", "format": "binary"}
FORM = {
    "query": FILE | {"description": "The image to edit."},
    "before": {"type": "array", "items": FILE, "description": "Of each pair, in order."},
    "after": {"type": "array", "items": FILE, "description": "Of each pair, in the same order."},
    **OPTIONS,
}
TEXT = {"type": "string", "description": "An image as base64 or data: URI."}
JSON = {
    "query": TEXT,
    "pairs": {"type": "array", "items": {"type": "object", "properties": {"before": TEXT, "after": TEXT},
                                         "required": ["before", "after"]}},
    **OPTIONS,
}  # fmt: skip


class Transfer(BaseModel):
    """One result.

    scores   `change`: mean absolute difference of query and result, 0 (untouched) to 1; `kept`: share of the pixels
             that are the query's, if it was to be restored
    timings  seconds: `wait`, `prepare`, `steps`, `decode`, and `total` of the whole request
    """

    b64_json: str
    media_type: str
    width: int
    height: int
    seed: int
    adapter: AdapterFacts | None
    base: BaseFacts
    scores: dict[str, float]
    timings: dict[str, float]
    prefix_cached: bool
    batch: float


IMAGE = {"schema": {"type": "string", "format": "binary"}}
KINDS = ("png", "jpeg", "webp", "tiff", "bmp", "gif", "avif")
SUCCESS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Transfer,
        "description": "The image, with headers `X-Edit-Transfer-*`; or JSON; or events.",
        "content": {f"image/{kind}": IMAGE for kind in KINDS} | {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["Transfers"])

    @routes.post(
        "/v1/transfers",
        response_model=None,
        responses=ANSWERS | SUCCESS,
        openapi_extra=multipart_or_json(FORM, ["query"], JSON, ["query"]),
        summary="Edit one image the way pairs or an adapter show",
    )
    async def transfer(
        request: Request, caller: Annotated[Caller, Depends(caller_with(services.gate, "transfer"))]
    ) -> Response:
        began = now()
        body = await _body(request, services)
        ask = _ask(body, request, services, caller, began)
        if body.yes("stream"):
            events = _events(services, ask)
            await anext(events)  # until then, what is wrong is an answer with its own status
            return StreamingResponse(
                events,
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        order, [result] = await services.done(ask)
        told = _told(services, order, result, ask)
        if _wants_json(body, request):
            return JSONResponse(told.model_dump())
        return Response(result.data, media_type=result.media_type, headers=_headers(told))

    return routes


async def _body(request: Request, services: Services) -> Body:
    if _is_form(request):
        body = await form_of(request, services.limits)
        befores, afters = body.files("before"), body.files("after")
        if len(befores) != len(afters):
            raise RequestError(
                f"{len(befores)} `before` and {len(afters)} `after` are no pairs: send as many of each.", "after"
            )
        pairs, queries = list(zip(befores, afters, strict=True)), body.files("query", "image")
    else:
        told = await json_of(request, services.limits)
        body = Body({name: [value] for name, value in told.items()})
        pairs = await asyncio.to_thread(_pairs_in, told.get("pairs") or [])
        queries = [await asyncio.to_thread(image_in, told["query"], "query")] if told.get("query") else []
    if len(queries) != 1:
        raise RequestError("Send one image to edit, as `query`.", "query")
    if len(pairs) > services.limits.pairs:
        field = (IN_FORM if _is_form(request) else IN_JSON).pairs
        raise RequestError(f"More than {services.limits.pairs} pairs are not taken.", field)
    return Body({**body.values, "query": queries, "pairs": pairs})


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


def _pairs_in(told: Any) -> list[tuple[bytes, bytes]]:
    if not isinstance(told, list) or not all(isinstance(pair, dict) for pair in told):
        raise RequestError("`pairs` must be a list of objects with `before` and `after`.", "pairs")
    return [
        (image_in(pair.get("before"), f"pairs.{at}.before"), image_in(pair.get("after"), f"pairs.{at}.after"))
        for at, pair in enumerate(told)
    ]


def _ask(body: Body, request: Request, services: Services, caller: Caller, began: float) -> Ask:
    seconds = body.number("timeout", 0.001, services.limits.seconds)
    scale = body.number("scale", -STRONGEST, STRONGEST)
    return Ask(
        query=body.values["query"][0],
        fields=IN_FORM if _is_form(request) else IN_JSON,
        pairs=body.values["pairs"],
        adapter=body.text("adapter") or body.text("model"),
        scale=1.0 if scale is None else scale,
        seed=body.whole("seed", 0, SEEDS - 1),
        steps=body.whole("steps", 1, services.limits.steps),
        format=body.choice("output_format", FORMATS) or _accepted(request),
        restore=body.yes("restore"),
        seconds=seconds or services.limits.seconds,
        began=began,
        previews=body.yes("previews"),
        tenant=caller.key_id,
    )


def _accepted(request: Request) -> str | None:
    """The first image format that `Accept` names, None for the query's own."""
    accept = request.headers.get("accept", "")
    named = [each.partition(";")[0].strip().lower().removeprefix("image/") for each in accept.split(",")]
    return next((each for each in named if each in FORMATS), None)


def _wants_json(body: Body, request: Request) -> bool:
    asked = body.choice("response_format", ("image", "json"))
    return asked == "json" if asked else "application/json" in request.headers.get("accept", "").lower()


def _told(services: Services, order: Order, result: Result, ask: Ask) -> Transfer:
    adapter = facts(order.worn)
    edited = result.edited
    return Transfer(
        b64_json=base64.b64encode(result.data).decode(),
        media_type=result.media_type,
        width=result.size[0],
        height=result.size[1],
        seed=result.seed,
        adapter=AdapterFacts(**adapter) if adapter else None,
        base=BaseFacts(name=services.desk.base, revision=services.desk.description.revision),
        scores={name: round(value, 6) for name, value in result.scores.items()},
        timings={**edited.timings, "total": now() - ask.began},
        prefix_cached=edited.prefix_cached,
        batch=edited.batch,
    )


def _headers(told: Transfer) -> dict[str, str]:
    facts = {
        "Base": told.base.name,
        "Base-Revision": told.base.revision,
        "Seed": str(told.seed),
        "Change": f"{told.scores['change']:.6f}",
        "Timings": ", ".join(f"{name}={seconds:.4f}" for name, seconds in told.timings.items()),
    }
    if "kept" in told.scores:
        facts["Kept"] = f"{told.scores['kept']:.6f}"
    if told.adapter:
        facts |= {
            "Adapter": told.adapter.name,
            "Version": str(told.adapter.version),
            "Digest": told.adapter.digest,
            "Scale": f"{told.adapter.scale:g}",
        }
    return {f"X-Edit-Transfer-{name}": value.encode("ascii", "replace").decode() for name, value in facts.items()}


async def _events(services: Services, ask: Ask) -> AsyncGenerator[bytes, None]:
    """Nothing once the order stands, then the stream's events. From then on an error is an event too."""
    async with services.desk.order(ask) as order:
        yield b""
        try:
            async with aclosing(services.replicas.progress(order.works[0])) as said:
                async for each in said:
                    if isinstance(each, Edited):
                        result = await services.desk.result(order, order.works[0], each)
                        yield _event("result", _told(services, order, result, ask).model_dump())
                    else:
                        yield _event("progress", await services.desk.aside(partial(_progress, each)))
        except Exception as error:
            yield _event("error", services.failures.told(error)[1])


def _progress(progress: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {"step": progress.step, "steps": progress.steps}
    if progress.preview:
        buffer = io.BytesIO()
        progress.preview.save(buffer, "JPEG", quality=80)
        told["preview"] = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return told


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
