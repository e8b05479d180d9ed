"""The runtime environment of a Ray job, as JSON: `python -m infra.deploy.environment`.

The variables that decide where things are go along: AWS's own and EDIT_TRANSFER_*.
"""

import json
import os
import sys
from collections.abc import Mapping

from infra.settings import PREFIX

TAKEN_ALONG = ("AWS_", PREFIX)


def runtime_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`env_vars` for `ray job submit --runtime-env-json`."""
    return {"env_vars": {key: value for key, value in environment.items() if key.startswith(TAKEN_ALONG)}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(runtime_environment(os.environ)))
