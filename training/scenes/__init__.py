"""Procedural product scenes and edits with exact ground truth.

A scene is a bundle of tensors, an edit family changes some of them, the renderer turns them into pixels. The same
edit with the same parameters on two scenes gives `(before, after, query, truth)`.
"""

from training.scenes.draw import BUSY, HELD_OUT, PLAIN, SPRITES, TRAINING, Look, draw_scenes
from training.scenes.families import (
    COMPOSITIONS,
    EVERY_FAMILY,
    FAMILIES,
    RESERVED,
    UNSEEN_COMPOSITIONS,
    Family,
    draw_parameters,
    draw_subjects,
    parameter_distance,
)
from training.scenes.products import HELD_OUT_CLASSES, PRODUCTS, SUBJECTS
from training.scenes.render import render
from training.scenes.scene import Scene, join_scenes
from training.scenes.tuples import Tuples, draw_tuples

__all__ = [
    "BUSY",
    "COMPOSITIONS",
    "EVERY_FAMILY",
    "FAMILIES",
    "HELD_OUT",
    "HELD_OUT_CLASSES",
    "PLAIN",
    "PRODUCTS",
    "RESERVED",
    "SPRITES",
    "SUBJECTS",
    "TRAINING",
    "UNSEEN_COMPOSITIONS",
    "Family",
    "Look",
    "Scene",
    "Tuples",
    "draw_parameters",
    "draw_scenes",
    "draw_subjects",
    "draw_tuples",
    "join_scenes",
    "parameter_distance",
    "render",
]
