"""The reference of ``bench.identity`` for single profiles: grpc.aio around a method that answers whom it was asked for, from nowhere.

``python -m bench.empty_identity`` listens on a free port of 127.0.0.1 and prints ``host:port``.
"""

from __future__ import annotations

from typing import Any

import grpc
import uvloop

from bench import garbage
from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1.profile_pb2 import Profile


async def get_profile(request: pb.GetProfileRequest, _: grpc.aio.ServicerContext[Any, Any]) -> pb.GetProfileResponse:
    """A profile with the identifier that was asked for."""
    return pb.GetProfileResponse(profile=Profile(identifiers=[request.identifier]))


async def serve() -> None:
    """Serves until a signal ends it."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(get_profile, pb.GetProfileRequest.FromString, pb.GetProfileResponse.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("cdi.identity.v1.IdentityService", {"GetProfile": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    garbage.calm()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
