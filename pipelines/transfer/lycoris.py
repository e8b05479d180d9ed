"""Which kinds of adapters a file's keys are of, by the names that LyCORIS, ai-toolkit and PEFT give to their parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

PRODUCT = re.compile(r".+\.(?:(?P<LoKr>lokr_w[12](?:_[ab])?)|(?P<LoHa>hada_w[12]_[ab]))")
NO_LORA = "which is more than two matrices per layer can say"
CONVOLUTION = "which is for convolutions, and this base has none"
OTHERS = {  # how a key ends or what it holds: what that is called, and why it is not taken
    r"\.lora_mid\.weight": ("LoCon with Tucker decomposition", CONVOLUTION),
    r"\.(?:lokr_t[12])": ("LoKr with Tucker decomposition", CONVOLUTION),
    r"\.(?:hada_t[12])": ("LoHa with Tucker decomposition", CONVOLUTION),
    r"\.on_input|\.ia3_l(?:\..+)?": ("IA3", "which multiplies what a layer computes"),
    r"\.(?:oft_blocks|oft_diag|oft_[rR](?:\..+)?|rescale)": ("OFT or BOFT", "which turns the base's own weights"),
    r"\.boft_[rRs](?:\..+)?": ("BOFT", "which turns the base's own weights"),
    r"\.(?:[ab][12]|bm)\.weight": ("GLoRA", "which also multiplies the base's own weights"),
    r"\.(?:diff|diff_b|set_weight)": ("full (changes of whole weights or biases)", NO_LORA),
    r"\.(?:w_norm|b_norm)": ("norm (changes of norms)", "which have no place in a LoRA"),
    r"\.(?:vera_lambda_[bd])": ("VeRA", NO_LORA),
}


class Other(NamedTuple):
    """Parts of a kind that cannot be taken in: what that is called and why not, how many they are, and one of them."""

    name: str
    why: str
    weights: int
    key: str


def product_of(key: str) -> str | None:
    """`LoKr` or `LoHa` if a key is of one."""
    match = PRODUCT.fullmatch(key)
    return match.lastgroup if match else None


def kind_of(keys: Iterable[str]) -> Other | None:
    """The first other kind that any of the keys is of."""
    keys = list(keys)
    for pattern, (name, why) in OTHERS.items():
        if found := [key for key in keys if re.fullmatch(rf".+(?:{pattern})", key)]:
            return Other(name, why, len(found), found[0])
    return None
