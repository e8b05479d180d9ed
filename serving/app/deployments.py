"""How Serve runs it: the ingress, and replicas with an engine each."""

import math
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from serving.app.ingress import Ingress
from serving.app.options import Options
from serving.app.replica import Replica
from serving.app.replicas import AGAIN_AFTER

PATIENCE = 30  # seconds a health check may take: a step of a large base holds the interpreter
LARGE = 1_000_000  # requests: the ingress itself refuses what is too much, in its own words


def application(options: Options) -> Application:
    """Both deployments, bound."""
    gpus = options.gpus
    if gpus is None:
        gpus = 1 if ray.is_initialized() and ray.cluster_resources().get("GPU") else 0
    replica: Any = serve.deployment(
        Replica,
        name="engine",
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": gpus},
        max_ongoing_requests=options.ongoing,
        max_queued_requests=options.max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=AGAIN_AFTER),
        graceful_shutdown_timeout_s=options.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        health_check_timeout_s=PATIENCE,
        **_scaling(options),
    )
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        num_replicas=options.ingresses,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=LARGE,
        graceful_shutdown_timeout_s=options.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return ingress.bind(options, replica.bind(options))


def _scaling(options: Options) -> dict[str, Any]:
    if not options.max_replicas or options.max_replicas <= options.replicas:
        return {"num_replicas": options.replicas}
    scaling = AutoscalingConfig(
        min_replicas=options.replicas,
        max_replicas=options.max_replicas,
        target_ongoing_requests=math.ceil(options.ongoing / 2),
        downscale_delay_s=300,
    )
    return {"autoscaling_config": scaling}
