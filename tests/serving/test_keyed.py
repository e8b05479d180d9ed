"""Where a key was made, every request needs one; the stock client says so in its own exceptions."""

import openai
import pytest
import requests

from serving.access import keys
from serving.app import Options, build


@pytest.fixture(scope="module")
def keyed(endpoint, tmp_path_factory):
    """A second application at the same server, with keys: (address, a token that may edit, one that may not)."""
    from ray import serve

    serving = str(tmp_path_factory.mktemp("keyed"))
    tokens = [keys.create(serving, name=scope, scopes=[scope])[1] for scope in ("transfer", "jobs")]
    options = Options(
        base=str(endpoint.base), registry=endpoint.registry, serving=serving, cache=f"{serving}/cache", cpus=0
    )
    serve.run(build(options), name="keyed", route_prefix="/keyed")
    yield f"{endpoint.url}/keyed", *tokens
    serve.delete("keyed")


def edit(address: str, token: str, png) -> openai.types.ImagesResponse:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0)
    return client.images.edit(model="invert", image=png(0), prompt="")


def test_a_key_opens_and_others_do_not(keyed, png):
    address, editing, other = keyed
    assert edit(address, editing, png).data
    with pytest.raises(openai.AuthenticationError):
        edit(address, "et_0123456789abcdef_" + "A" * 43, png)
    with pytest.raises(openai.AuthenticationError):
        edit(address, "sk-something-else", png)
    with pytest.raises(openai.PermissionDeniedError):
        edit(address, other, png)


def test_without_a_key_only_probes_are_answered(keyed):
    address, *_ = keyed
    for path in ("/v1/models", "/v1/adapters", "/metrics"):
        answer = requests.get(f"{address}{path}")
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer", path
    for path in ("/healthz", "/readyz"):
        assert requests.get(f"{address}{path}", headers={"Host": "10.0.0.7"}).ok


def test_with_a_key_another_name_is_no_matter(keyed):
    address, editing, _ = keyed
    headers = {"Host": "shop.example", "Authorization": f"Bearer {editing}"}
    assert requests.get(f"{address}/v1/models", headers=headers).ok
