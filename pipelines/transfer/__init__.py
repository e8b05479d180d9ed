"""One image: the in-context diffusion transformer. Pure torch; nothing here knows of Ray, stores or folders of photos.

Read in this order: `layout` (the rule), `attention` (prefix attention), `flux2` (a family), `sampler`, `editor`.
"""

from pipelines.transfer.adapters import Lora
from pipelines.transfer.editor import Editor, Pair, Prefix, check_framing, fitted, resized

__all__ = ["Editor", "Lora", "Pair", "Prefix", "check_framing", "fitted", "resized"]
