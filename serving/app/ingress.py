"""The deployment that speaks HTTP. It has no GPU: it decodes, asks a replica, encodes and answers."""

import asyncio
from functools import partial

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from infra.jobs import Jobs
from infra.settings import from_environment
from serving.access import Gate
from serving.app import application
from serving.app.desk import Desk
from serving.app.directory import Directory
from serving.app.failures import Failures
from serving.app.metrics import Metrics
from serving.app.options import Options
from serving.app.replicas import Replicas
from serving.app.services import Services
from serving.jobs import Desk as JobDesk
from serving.jobs import JobsConfig, Webhooks


class Ingress:
    """Takes requests as soon as one engine is ready."""

    async def __init__(self, options: Options, handle: DeploymentHandle) -> None:  # type: ignore[misc]  # Serve awaits it
        settings = from_environment()
        address, serving = options.registry or settings.registry, options.serving or settings.serving
        replicas = Replicas(handle)
        description = await replicas.describe()
        directory = Directory(address, description.revision, options.watch_seconds)
        max_pixels = options.max_pixels or settings.max_pixels
        gate = Gate(serving)
        config = JobsConfig(serving=serving, registry=address, prefixes=options.job_prefixes, webhooks=options.webhooks)
        jobs = JobDesk(config, partial(Jobs, options.jobs, settings))
        self.services = Services(
            options=options,
            gate=gate,
            desk=Desk(directory, description, max_pixels, options.limits),
            replicas=replicas,
            failures=Failures([address, serving, options.cache or settings.cache]),
            metrics=Metrics(),
            jobs=jobs,
            webhooks=Webhooks(jobs, gate),
        )
        if options.webhooks:
            self.telling = asyncio.create_task(self.services.webhooks.run())

    def __serve_build_asgi_app__(self) -> FastAPI:
        return application.application(self.services)
