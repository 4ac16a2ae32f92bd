"""gRPC on both sides: a server with health, reflection and one interceptor; channels; faults as google.rpc.Status.

Deliberately absent: retries. A caller of the data path waits and retries the whole batch, others pass the fault on.
"""

from cdi_runtime.rpc.channels import call, channel, stream, upload
from cdi_runtime.rpc.server import Registration, serve
from cdi_runtime.rpc.status import fault_of, status_of
from cdi_runtime.rpc.tokens import TokenGuard, token_digest

__all__ = ["Registration", "TokenGuard", "call", "channel", "fault_of", "serve", "status_of", "stream", "token_digest", "upload"]
