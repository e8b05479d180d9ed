"""`/docs` works where no other server can be reached."""

import re
from urllib.parse import urlsplit

import requests


def test_the_page_takes_everything_it_shows_from_the_endpoint_itself(endpoint):
    page = requests.get(f"{endpoint.url}/docs")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.status_code == 200 and any(part.endswith(".js") for part in parts) and len(parts) >= 3
    for part in [*parts, "/openapi.json"]:
        assert not urlsplit(part).netloc, part
        assert requests.get(f"{endpoint.url}{part}").status_code == 200, part
