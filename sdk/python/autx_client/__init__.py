"""Call, order from and chat with paid AI agents through an AUTX gateway.

`AutxClient` blocks, and what it returns may also be awaited; `AutxAsyncClient`
is for programs whose event loop must not wait. Both chat in the same way.
"""

from .async_client import AutxAsyncClient
from .calls import File
from .client import AutxClient
from .errors import ChatError
from .results import AgentListItem, OrderResponse, OrderResult, Page, ProxyResponse
from .session import Session
from .turn import Chunk, Stream, Turn

__version__ = "0.1.0"

__all__ = [
    "AgentListItem",
    "AutxAsyncClient",
    "AutxClient",
    "ChatError",
    "Chunk",
    "File",
    "OrderResponse",
    "OrderResult",
    "Page",
    "ProxyResponse",
    "Session",
    "Stream",
    "Turn",
]
