"""Procedural product scenes and edits with exact ground truth.

A scene is a bundle of tensors, an edit family changes some of them, the renderer turns them into pixels. The same
edit with the same parameters on two scenes gives `(before, after, query, truth)`.
"""

from training.scenes.edits import FAMILIES, Family, draw_parameters
from training.scenes.render import render
from training.scenes.scene import HELD_OUT_CLASSES, PRODUCTS, TRAINING_CLASSES, Scene, draw_scenes
from training.scenes.tuples import Tuples, draw_tuples

__all__ = [
    "FAMILIES",
    "HELD_OUT_CLASSES",
    "PRODUCTS",
    "TRAINING_CLASSES",
    "Family",
    "Scene",
    "Tuples",
    "draw_parameters",
    "draw_scenes",
    "draw_tuples",
    "render",
]
