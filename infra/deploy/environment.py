"""The runtime environment of a Ray job, as JSON: `python -m infra.deploy.environment`.

The variables that decide where things are go along. Keys do not: Ray shows a job's environment to whoever asks.
"""

import json
import os
import sys
from collections.abc import Mapping

from infra.settings import PREFIX

TAKEN_ALONG = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_REQUEST_CHECKSUM_CALCULATION", PREFIX)


def runtime_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`env_vars` for `ray job submit --runtime-env-json`."""
    return {"env_vars": {key: value for key, value in environment.items() if key.startswith(TAKEN_ALONG)}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(runtime_environment(os.environ)))
