"""One image: the in-context diffusion transformer. Pure torch; nothing here knows of Ray, stores or folders of photos.

Read in this order: `layout` (the rule), `attention` (prefix attention), `flux2` (a family), `sampler`, `editor`.
"""

from pipelines.transfer.adapters import Lora
from pipelines.transfer.editor import Editor, Pair, Prefix
from pipelines.transfer.pictures import check_framing, fitted, resized
from pipelines.tuning import Tuning

__all__ = ["Editor", "Lora", "Pair", "Prefix", "Tuning", "check_framing", "fitted", "resized"]
