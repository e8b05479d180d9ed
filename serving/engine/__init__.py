"""One GPU's engine: requests in, images out, batched at every step. Neither Ray nor HTTP in here.

Read in this order: `request` (what passes in and out), `engine` (the loop), `batch` (one step), `fairness`, `caches`.
"""

from serving.engine.engine import Engine
from serving.engine.request import Description, Edited, Progress, Work

__all__ = ["Description", "Edited", "Engine", "Progress", "Work"]
