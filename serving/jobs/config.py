"""What may be asked for of the endpoint's jobs."""

from dataclasses import dataclass

from serving.jobs.places import Places
from serving.jobs.targets import Targets


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """Nothing is allowed by default: without prefixes jobs are refused, without an allow-list webhooks are.

    serving   where the endpoint keeps its own things; no job gets near it
    registry  where adapters are looked up, by the endpoint and by its jobs; no job writes there
    prefixes  folders and s3:// prefixes that jobs may read and write; in one, `{name}` and `{key}` stand for the name
              and the id of the caller's key, so that each has a place of its own
    webhooks  URLs, without query, below which webhooks may go
    """

    serving: str
    registry: str
    prefixes: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError for a prefix or a URL that cannot be one."""
        _ = self.places, self.targets

    @property
    def places(self) -> Places:
        return Places(self.prefixes, (self.serving, self.registry))

    @property
    def targets(self) -> Targets:
        return Targets(self.webhooks)
