"""What is counted while a job runs: added up in the driver, from what the workers tell."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from pipelines.catalog.listing import Passed
from pipelines.catalog.plan import Settled


@dataclass(frozen=True)
class Counts:
    """What became of some images; `+` adds. Times are in seconds, summed over the workers.

    done, failed         edited, or not, in this run
    skipped              found unchanged after their bytes were looked at
    kept, kept_failed    stay as an earlier run left them, not even looked at
    editing, waiting     time of the edit actors between their first batch and their last
    passed               what the listing passed over; comes with the last of what is listed
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    kept: int = 0
    kept_failed: int = 0
    editing: float = 0.0
    waiting: float = 0.0
    passed: Passed | None = None

    def __add__(self, other: "Counts") -> "Counts":
        numbers = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name != "passed"
        }
        return Counts(**numbers, passed=self.passed or other.passed)

    @classmethod
    def of_settled(cls, settled: Sequence[Settled]) -> "Counts":
        """Counts of inputs that stay as they are."""
        return cls(kept=settled.count(Settled.DONE), kept_failed=settled.count(Settled.FAILED))

    @property
    def finished(self) -> int:
        """Images that this run has dealt with."""
        return self.done + self.skipped + self.failed

    @property
    def total(self) -> int:
        """Images that have been listed and dealt with, now or before."""
        return self.finished + self.kept + self.kept_failed

    @property
    def busy(self) -> float | None:
        """Share of their time that the edit actors edited, None before there is any."""
        whole = self.editing + self.waiting
        return self.editing / whole if whole else None
