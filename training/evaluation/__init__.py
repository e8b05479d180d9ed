"""How well a base or adapter reads a pair: scenes with exact ground truth, through the Editor that users run."""

from training.evaluation.plan import Plan
from training.evaluation.suite import Row, evaluate_scenes

__all__ = ["Plan", "Row", "evaluate_scenes"]
