"""What a job comes to in the end: for the screen, for `--json` and for the report."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.catalog.listing import Passed

REPORT, FAILURES = "report.html", "failures.csv"


@dataclass(frozen=True)
class Summary:
    """The outcome of a job, over the images it was asked for: total = done + skipped + failed.

    done counts the images edited now, skipped those that an earlier run had finished, failed those that have
    no result. busy is the share of their time that the edit actors edited, None where nothing was measured; cost is
    in the currency of the price, None without a price.
    """

    total: int
    done: int
    skipped: int
    failed: int
    seconds: float
    images_per_second: float
    manifest: str
    report: str
    job_id: str
    workers: int
    busy: float | None
    cost: float | None
    passed: Passed

    @property
    def failures(self) -> str:
        """Address of the table of all failures, which is there if there are any."""
        return self.report.removesuffix(REPORT) + FAILURES

    @property
    def cost_per_1000(self) -> float | None:
        """What a thousand images cost that were edited now, None where none were or nobody knows the price."""
        return self.cost * 1000 / self.done if self.cost is not None and self.done else None

    def told(self) -> dict[str, Any]:
        """What `--json` prints."""
        told = asdict(self)
        del told["passed"]
        return told
