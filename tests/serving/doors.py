"""How the tests of access stand before the gate."""

from serving.access import Caller, Gate


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> str:
    return f"Bearer {token}"


async def entered(door: Gate, authorization: str | None, scope: str | None = None) -> Caller:
    async with door.enter(authorization, scope) as caller:
        return caller
