"""Who may ask the endpoint for what: bearer keys, their scopes and their limits. Neither Ray nor HTTP in here.

Gate(address)     lets requests in, or raises Unauthorized, Forbidden, TooMany or StoreUnavailable
Caller            whose request it is
Key               what is stored of a key; `keys` makes, lists and revokes them
"""

from serving.access.gate import ANONYMOUS, Caller, Gate
from serving.access.keys import SCOPES, Key

__all__ = ["ANONYMOUS", "SCOPES", "Caller", "Gate", "Key"]
