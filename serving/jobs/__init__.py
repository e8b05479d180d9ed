"""Jobs over catalogs, asked for over HTTP: submitted to Ray Jobs, owned by a key, told of by a webhook.

JobsConfig                          what may be asked for
Desk(config, cluster)               takes jobs and tells of them; every method blocks
jobs_router(desk, gate, webhooks)   the routes below /v1/jobs
Webhooks(desk, gate)                tells of jobs that have ended
"""

from serving.jobs.config import JobsConfig
from serving.jobs.desk import Desk
from serving.jobs.router import jobs_router
from serving.jobs.webhooks import Schedule, Webhooks

__all__ = ["Desk", "JobsConfig", "Schedule", "Webhooks", "jobs_router"]
