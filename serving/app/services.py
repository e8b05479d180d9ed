"""What routes work with, and the one way from a request to its results."""

import asyncio
import time
from dataclasses import dataclass

from serving.access import Gate
from serving.app.desk import Ask, Desk, Order, Result
from serving.app.failures import Failures
from serving.app.metrics import Metrics
from serving.app.options import Limits, Options
from serving.app.replicas import Replicas
from serving.engine.request import Work
from serving.jobs import Desk as JobDesk
from serving.jobs import Webhooks


@dataclass(frozen=True)
class Services:
    """One of each, for the whole process."""

    options: Options
    gate: Gate
    desk: Desk
    replicas: Replicas
    failures: Failures
    metrics: Metrics
    jobs: JobDesk
    webhooks: Webhooks

    @property
    def limits(self) -> Limits:
        return self.options.limits

    async def results(self, order: Order) -> list[Result]:
        """All results of an order. If one fails, or the caller goes away, the others are given up."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._result(order, work)) for work in order.works]
        return [task.result() for task in tasks]

    async def _result(self, order: Order, work: Work) -> Result:
        return await self.desk.result(order, work, await self.replicas.transfer(work))

    async def done(self, ask: Ask) -> tuple[Order, list[Result]]:
        """The order for what a request asks for, and its results."""
        async with self.desk.order(ask) as order:
            try:
                return order, await self.results(order)
            except ExceptionGroup as group:
                raise group.exceptions[0] from None


def now() -> float:
    """The clock of `Ask.began`."""
    return time.monotonic()
