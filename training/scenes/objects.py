"""Random objects out of parts: products of a class, invented ones, what is written on them, and bystanders."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.products import JOINTS, PRODUCTS
from training.scenes.scene import OWN_COLOURS, hsv_to_rgb
from training.scenes.shapes import LETTERS, Form
from training.scenes.uniform import Uniform

INVENTED_SHARE = 0.35  # of training products: shapes made up on the spot, so that no few classes are learned by heart
INVENTED_PARTS = 4
BYSTANDERS = 2
BYSTANDING, WRITTEN, OUTLINED = 0.4, 0.3, 0.1  # shares of busy scenes


def draw_objects(
    count: int, classes: tuple[str, ...], uniform: Uniform, invented: bool, busy: Tensor
) -> dict[str, Tensor]:
    """The parts of `count` scenes, bystanders first, as fields of a `Scene`; `busy` (B,) ones have more to show."""
    parts, forms, slots, joints = _draw_object(count, classes, uniform, invented, busy)
    colours, owners = _draw_colours(count, uniform), torch.zeros_like(slots)
    if busy.any():
        parts, forms, slots, joints = _write_on(parts, forms, slots, joints, uniform, busy)
        parts[..., 6] = torch.where((busy & (uniform(count) < OUTLINED))[:, None], 0.05, parts[..., 6])
        owners = torch.zeros_like(slots)
        some = busy & (uniform(count) < BYSTANDING)
        for number in range(1, BYSTANDERS + 1):
            theirs = _draw_object(count, classes, uniform, invented, busy)
            there = some & (uniform(count) < 1 / number)
            theirs[0][..., 4] *= there[:, None]
            parts, forms = torch.cat([theirs[0], parts], 1), torch.cat([theirs[1], forms], 1)
            slots = torch.cat([theirs[2] + OWN_COLOURS * number, slots], 1)
            joints = torch.cat([torch.zeros_like(theirs[3]), joints], 1)
            owners = torch.cat([torch.full_like(theirs[3], number), owners], 1)
            colours = torch.cat([colours, _draw_colours(count, uniform)], 1)
    return {"parts": parts, "forms": forms, "slots": slots, "joints": joints, "owners": owners, "colours": colours}


def _draw_object(
    count: int, classes: tuple[str, ...], uniform: Uniform, invented: bool, busy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    most = max(INVENTED_PARTS if invented else 0, *(len(PRODUCTS[name]) for name in classes))
    table, joints = torch.zeros(len(classes), most, 9), torch.zeros(len(classes), most, dtype=torch.long)
    for row, name in enumerate(classes):
        table[row, : len(PRODUCTS[name])] = torch.tensor(PRODUCTS[name])
        joints[row, : len(JOINTS.get(name, ()))] = torch.tensor(JOINTS.get(name, ()), dtype=torch.long)
    chosen = (uniform(count) * len(classes)).long()
    parts, joints = table.to(uniform.device)[chosen], joints.to(uniform.device)[chosen]
    forms = torch.zeros(count, most, 3, device=uniform.device)
    if invented:
        take = (uniform(count) < INVENTED_SHARE)[:, None]
        parts = torch.where(take[..., None], _invent_parts(count, most, uniform), parts)
        joints = torch.where(take, 0, joints)
        forms = torch.where((take & busy[:, None])[..., None], _invent_forms(count, most, uniform), forms)
    stretch = uniform(count, 1, 2, low=0.8, high=1.2)
    shape = torch.cat([parts[..., :2] * stretch, parts[..., 2:4] * stretch[..., :1], parts[..., 4:8]], -1)
    shape[..., 2:4] *= uniform(count, most, 2, low=0.9, high=1.1)
    shape[..., 4] *= stretch[..., 1]
    return shape, forms, parts[..., 8].long(), joints


def _invent_parts(count: int, most: int, uniform: Uniform) -> Tensor:
    """(B, P, 9) a body in the main colour in the middle, and attachments of any colour about it."""
    shape = (count, most)
    parts = torch.zeros(*shape, 9, device=uniform.device)
    parts[..., 0], parts[..., 1] = uniform(*shape, low=-0.45, high=0.45), uniform(*shape, low=-0.5, high=0.5)
    parts[..., 2:4] = uniform(*shape, 2, low=0.06, high=0.28)
    parts[..., 4] = uniform(*shape, low=0.06, high=0.28) * (uniform(*shape) < 0.6)
    parts[..., 5] = uniform(*shape, low=0.01, high=0.12)
    parts[..., 6] = 0.06 * (uniform(*shape) < 0.25)
    parts[..., 7] = uniform(*shape, low=-0.8, high=0.8)
    parts[..., 8] = (uniform(*shape) * 3).floor()
    body = torch.cat([uniform(count, 2, low=-0.08, high=0.08), uniform(count, 3, low=0.22, high=0.52)], -1)
    parts[:, 1, :5], parts[:, 1, 6:] = body, 0
    return parts


def _invent_forms(count: int, most: int, uniform: Uniform) -> Tensor:
    """(B, P, 3) boxes, polygons, stars and ovals, a third each of the last two kinds together."""
    shape = (count, most)
    kind = (uniform(*shape) * 3).floor()
    corners = (3 + 6 * uniform(*shape)).floor()
    depth = 0.5 * uniform(*shape) * (uniform(*shape) < 0.5)
    exponent = 1.2 + 3 * uniform(*shape)
    first = torch.where(kind == Form.POLYGON, corners, exponent) * (kind > Form.BOX)
    return torch.stack([kind, first, depth * (kind == Form.POLYGON)], -1)


def _write_on(
    parts: Tensor, forms: Tensor, slots: Tensor, joints: Tensor, uniform: Uniform, busy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A letter or a number on some of the busy objects, in the second or the dark colour; it belongs to the object."""
    count = len(parts)
    there = busy & (uniform(count) < WRITTEN)
    side = uniform(count, low=0.1, high=0.2)
    place = uniform(count, 2, low=-0.12, high=0.12)
    zero = torch.zeros_like(side)
    letter = torch.stack([*place.T, side, side, side * there, zero, zero, uniform(count, low=-0.3, high=0.3)], -1)
    form = torch.stack([zero + Form.LETTER, (uniform(count) * len(LETTERS)).floor(), zero], -1)
    slot = 1 + (uniform(count, 1) < 0.5).long()
    return (
        torch.cat([parts, letter[:, None]], 1),
        torch.cat([forms, form[:, None]], 1),
        torch.cat([slots, slot], 1),
        torch.cat([joints, torch.zeros_like(slot)], 1),
    )


def _draw_colours(count: int, uniform: Uniform) -> Tensor:
    hsv = torch.stack([uniform(count, 3), uniform(count, 3), uniform(count, 3, low=0.35)], -1)
    hsv[:, 2, 1] *= 0.3
    hsv[:, 2, 2] *= 0.45
    return hsv_to_rgb(hsv)
