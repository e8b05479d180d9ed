"""Prefix attention for the FLUX families: processors that read keys and values kept from clean blocks.

Letters: B images, S tokens, H heads, D channels of a head. The processors do what the stock ones of diffusers do, with
one addition: given a `memory`, they attend to the remembered tokens as well, and leave their own keys and values in it.
They read it from a keyword of their signature, because diffusers drops unknown keywords with only a log line. A pass
gives all blocks one `Memory`; a hook of each block takes its layer's `Slot` out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.transfer.invariance import Attend, image_by_image

if TYPE_CHECKING:  # importing diffusers takes seconds and brings half of the Hub's clients with it
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
    from diffusers.models.transformers.transformer_flux import FluxAttention
    from diffusers.models.transformers.transformer_flux2 import Flux2Attention, Flux2ParallelSelfAttention

Rotary = tuple[Tensor, Tensor]
KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Segment:
    """Keys and values of some clean tokens, rotary positions applied: one (BSHD, BSHD) per layer.

    B is 1 for tokens shared by every image of a batch, such as a pair's.
    """

    layers: tuple[KeyValue, ...]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def split(self) -> list[Segment]:
        """The segments of the single images of a batch."""
        rows = zip(
            *([(k, v) for k, v in zip(ks.split(1), vs.split(1), strict=True)] for ks, vs in self.layers), strict=True
        )
        return [Segment(layers) for layers in rows]

    def repeat(self, times: int) -> Segment:
        """Every image `times` in a row."""
        return Segment(tuple((k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.layers))


@dataclass
class Slot:
    """What one layer reads in one pass, and the keys and values it leaves when `record` is set.

    Nothing in it tells layers apart, so that one compiled block serves them all.
    """

    read: Sequence[KeyValue] = ()
    each: Sequence[Sequence[KeyValue]] = ()
    record: bool = False
    written: KeyValue | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attention: Attend) -> Tensor:
        """Attend to the remembered tokens, then to the pass's own (BSHD)."""
        if self.record:
            self.written = (key, value.contiguous())  # a part of a wide projection would keep all of it
        if not self.each:
            return attention(query, *_extended(key, value, self.read))
        rows = zip(query.split(1), key.split(1), value.split(1), self.each, strict=True)
        return torch.cat([attention(q, *_extended(k, v, read)) for q, k, v, read in rows])


@dataclass
class Memory:
    """What one pass through the model reads, and the keys and values it leaves when `record` is set.

    `read` has the segments that all images of the batch read, or, under `each`, those of every image on its own:
    images of one batch may have different pairs, and as many of them as they like.
    """

    read: Sequence[Segment] = ()
    each: Sequence[Sequence[Segment]] = ()
    record: bool = False
    slots: dict[int, Slot] = field(default_factory=dict)

    def at(self, layer: int) -> Slot:
        """A layer's part in this pass."""
        each = [_layer(segments, layer) for segments in self.each]
        self.slots[layer] = Slot(_layer(self.read, layer), each, self.record)
        return self.slots[layer]

    def segment(self) -> Segment:
        """What was recorded."""
        written = (self.slots[layer].written for layer in sorted(self.slots))
        return Segment(tuple(key_value for key_value in written if key_value))


def _layer(segments: Sequence[Segment], layer: int) -> list[KeyValue]:
    return [segment.layers[layer] for segment in segments]


def _extended(key: Tensor, value: Tensor, read: Sequence[KeyValue]) -> KeyValue:
    if not read:
        return key, value
    shape = (key.shape[0], -1, -1, -1)
    keys, values = ([kept.expand(shape) for kept in each] for each in zip(*read, strict=True))
    return torch.cat([*keys, key], 1), torch.cat([*values, value], 1)


class _Processor:
    _attention_backend = None  # see `set_backend`
    _parallel_config = None

    def __init__(self) -> None:
        from diffusers.models.attention_dispatch import dispatch_attention_fn
        from diffusers.models.embeddings import apply_rotary_emb

        self._dispatch, self._rotate = dispatch_attention_fn, apply_rotary_emb

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        memory: Slot | None,
    ) -> Tensor:
        query = self._rotate(query, rotary, sequence_dim=1)
        key = self._rotate(key, rotary, sequence_dim=1)
        attention = image_by_image(
            partial(
                self._dispatch, attn_mask=mask, backend=self._attention_backend, parallel_config=self._parallel_config
            )
        )
        attended = attention(query, key, value) if memory is None else memory.attend(query, key, value, attention)
        return attended.flatten(2, 3).to(query.dtype)


class DoubleStreamProcessor(_Processor):
    """For the blocks with separate text and image streams, of both families; the order inside is text, image."""

    def __call__(
        self,
        attn: Flux2Attention | FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        memory: Slot | None = None,
    ) -> tuple[Tensor, Tensor]:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (-1, attn.head_dim))

        query = torch.cat(
            [
                attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states))),
                attn.norm_q(heads(attn.to_q(hidden_states))),
            ],
            1,
        )
        key = torch.cat(
            [
                attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states))),
                attn.norm_k(heads(attn.to_k(hidden_states))),
            ],
            1,
        )
        value = torch.cat([heads(attn.add_v_proj(encoder_hidden_states)), heads(attn.to_v(hidden_states))], 1)
        assert image_rotary_emb is not None
        attended = self._attend(query, key, value, image_rotary_emb, attention_mask, memory)
        text, image = attended.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], 1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


class SingleStreamProcessor(_Processor):
    """For the blocks of FLUX.2 that run text and image as one stream, attention and feed-forward in parallel."""

    def __call__(
        self,
        attn: Flux2ParallelSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        memory: Slot | None = None,
    ) -> Tensor:
        sizes = [attn.inner_dim] * 3 + [attn.mlp_hidden_dim * attn.mlp_mult_factor]
        query, key, value, mlp = attn.to_qkv_mlp_proj(hidden_states).split(sizes, -1)
        query, key, value = (x.unflatten(-1, (-1, attn.head_dim)) for x in (query, key, value))
        assert image_rotary_emb is not None
        attended = self._attend(attn.norm_q(query), attn.norm_k(key), value, image_rotary_emb, attention_mask, memory)
        return attn.to_out(torch.cat([attended, attn.mlp_act_fn(mlp)], -1))


class PlainSingleStreamProcessor(_Processor):
    """For those of FLUX.1, where the block itself runs the feed-forward."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        memory: Slot | None = None,
    ) -> Tensor:
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, attn.head_dim)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        assert image_rotary_emb is not None
        return self._attend(attn.norm_q(query), attn.norm_k(key), value, image_rotary_emb, attention_mask, memory)


class _AtLayer:
    """A hook of a block, outside of what is compiled: of the memory given to all of them it gets its layer's slot."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return tuple(map(self._own, args)), {key: self._own(value) for key, value in kwargs.items()}

    def _own(self, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(memory := given.get("memory"), Memory):
            return given | {"memory": memory.at(self.layer)}
        return given


def blocks_of(transformer: Any) -> list[Any]:
    """All blocks in the order in which they run: double-stream ones first, then single-stream ones."""
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


def install(transformer: Flux2Transformer2DModel | FluxTransformer2DModel) -> None:
    """Give every block a processor that reads and leaves keys and values, and a hook that knows its layer."""
    for layer, block in enumerate(blocks_of(transformer)):
        block.attn.set_processor(_processor(block.attn))
        if not any(isinstance(hook, _AtLayer) for hook in block._forward_pre_hooks.values()):
            block.register_forward_pre_hook(_AtLayer(layer), with_kwargs=True)


def set_backend(transformer: Flux2Transformer2DModel | FluxTransformer2DModel, name: str) -> None:
    """Have a transformer with our processors attend by this backend of diffusers, such as `native` or `sage`.

    Its own method would make it the usual one of every other model of the process as well.

    Raises:
        ValueError, RuntimeError, ImportError: there is none of this name here.
    """
    from diffusers.models.attention_dispatch import attention_backend

    with attention_backend():
        transformer.set_attention_backend(name)


def _processor(attn: Any) -> _Processor:
    if hasattr(attn, "to_qkv_mlp_proj"):
        return SingleStreamProcessor()
    return DoubleStreamProcessor() if attn.added_kv_proj_dim is not None else PlainSingleStreamProcessor()
