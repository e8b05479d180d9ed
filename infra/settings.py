"""The only reader of the environment (AWS variables excepted: boto3 and pyarrow read those themselves)."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import SettingError

PREFIX = "EDIT_TRANSFER_"
REGISTRY = "~/.edit-transfer/registry"
SERVING = "~/.edit-transfer/serving"
CACHE = "~/.cache/edit-transfer"
COMPILED = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment may decide.

    base        id or folder of the base to use where a command names none; None is the bundled one
    max_pixels  images with more pixels than this are refused before they are decoded
    ray         address of the Ray cluster to use; None starts one inside the process
    jobs        address of the dashboard of the Ray cluster that jobs are submitted to, where it differs from `ray`
    registry    where adapters are published and looked up: a folder, s3:// or memory://
    serving     where the endpoint keeps its keys, and which webhooks it has delivered: a folder or s3://
    cache       folder for copies of adapters; may be emptied at any time
    """

    base: str | None = None
    max_pixels: int = 100_000_000
    ray: str | None = None
    jobs: str | None = None
    registry: str = field(default_factory=lambda: expanded(REGISTRY))
    serving: str = field(default_factory=lambda: expanded(SERVING))
    cache: str = field(default_factory=lambda: expanded(CACHE))


def expanded(folder: str) -> str:
    """The address with `~` at its start replaced and a local path made absolute: workers run elsewhere.

    Who has no home folder is taken to be at home in `/`, as containers have it.
    """
    if "://" in folder:
        return folder
    path = os.path.expanduser(folder)  # noqa: PTH111
    return os.path.abspath(path[1:] if path.startswith("~/") else path)  # noqa: PTH100


def key_of(path: str) -> str | None:
    """The variable that names another place than the usual one, where a path is in such a one: it may not be usable."""
    places = {"REGISTRY": REGISTRY, "SERVING": SERVING, "CACHE": CACHE}
    found = (key for key, place in places.items() if f"{path}/".startswith(f"{expanded(place)}/"))
    return next((f"{PREFIX}{key}" for key in found), None)


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `EDIT_TRANSFER_*` and Ray's own variables. Raises SettingError, naming the key."""
    return Settings(
        base=environment.get(f"{PREFIX}BASE") or None,
        max_pixels=_positive(environment, f"{PREFIX}MAX_PIXELS", Settings.max_pixels),
        ray=environment.get("RAY_ADDRESS") or None,
        jobs=environment.get("RAY_API_SERVER_ADDRESS") or None,
        registry=expanded(environment.get(f"{PREFIX}REGISTRY") or REGISTRY),
        serving=expanded(environment.get(f"{PREFIX}SERVING") or SERVING),
        cache=expanded(environment.get(f"{PREFIX}CACHE") or CACHE),
    )


def _positive(environment: Mapping[str, str], key: str, default: int) -> int:
    text = environment.get(key) or str(default)
    if not (text.isdecimal() and int(text) > 0):
        raise SettingError(f"{key} must be a whole number above zero, but is {text!r}.")
    return int(text)


def keep_compiled(cache: str) -> None:
    """Let torch keep the kernels that it compiles in this process with what else is kept on this machine, unless the
    environment names another place or this one cannot be written: the next process then starts with them."""
    folder = Path(cache, "compiled")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.environ.setdefault(COMPILED, str(folder))
