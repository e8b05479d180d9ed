"""How well a base reads a pair: rendered scenes with exact ground truth, through the Editor that users run."""

from training.evaluation.suite import Case, FamilyScores, evaluate_scenes

__all__ = ["Case", "FamilyScores", "evaluate_scenes"]
