"""The least an endpoint on Ray Serve costs: as many processes as ours has, and nothing done in them."""

from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

app = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Behind:
    """Stands where the engine does."""

    async def same(self, data: bytes) -> bytes:
        return data


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Front:
    """Stands where the ingress does."""

    def __init__(self, behind: DeploymentHandle) -> None:
        self.behind = behind

    @app.post("/")
    async def echo(self, request: Request) -> Response:
        [data] = [await each.read() for each in (await request.form()).values() if not isinstance(each, str)]
        return Response(await self.behind.same.remote(data), media_type="image/png")


def application() -> Application:
    """Both, bound."""
    return Front.bind(Behind.bind())  # type: ignore[attr-defined]
