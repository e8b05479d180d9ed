"""Two Ray nodes on this machine that take jobs, with an environment of their own, as a test part.

Run as a program it is the cluster: it tells its addresses on stdout and ends when its stdin does.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CPUS = (1, 2)  # of the head, and of the other node


@contextmanager
def served(environment: Mapping[str, str], own_token: bool = True) -> Iterator[dict[str, str]]:
    """A cluster whose nodes have these variables: the variables to reach it with, for as long as the block lasts.

    A process reads its token once: where it has a Ray already, only a cluster without a token of its own lets it in.
    """
    keys = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} if own_token else {}
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_", "EDIT_TRANSFER_"))}
    cluster = subprocess.Popen(
        [sys.executable, "-m", "tests.clusters"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=plain | python | keys | environment,
        cwd=Path(__file__).parents[1],
    )
    assert cluster.stdin and cluster.stdout
    try:
        told = cluster.stdout.readline()
        assert told, "The cluster did not start."
        yield keys | python | json.loads(told)
    finally:
        cluster.stdin.close()
        cluster.wait()


def _serve(folder: str) -> None:
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # Cluster leaves a note there
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dashboard = {"include_dashboard": True, "dashboard_port": port, "dashboard_agent_listen_port": None}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS[0], "temp_dir": folder, **dashboard})
    write_ray_address(cluster.gcs_address, folder)  # or jobs would join whatever Ray this machine has
    cluster.add_node(num_cpus=CPUS[1])
    sys.stdout.write(json.dumps({"RAY_API_SERVER_ADDRESS": f"http://{cluster.webui_url}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        _serve(folder)
