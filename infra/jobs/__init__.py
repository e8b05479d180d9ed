"""Ray Jobs: what runs on a cluster as a job, and `edit-transfer jobs` to look after it.

Jobs(address)   submit, all, status, logs, follow, cancel
new_job_id()    an id that tells when
"""

from infra.jobs.client import Job, Jobs, new_job_id

__all__ = ["Job", "Jobs", "new_job_id"]
