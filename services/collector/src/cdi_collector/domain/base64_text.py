"""Base64 as trackers write it: the standard alphabet or the one for URLs, with padding or without, ``+`` perhaps decoded to a space."""

from __future__ import annotations

import binascii
from typing import Final

from cdi_collector.faults import malformed

_STANDARD: Final = bytes.maketrans(b"-_ ", b"+/+")
_PADDING: Final = b"===="


def decoded(text: bytes) -> bytes:
    """What the text stands for.

    Raises:
        InvalidArgument: it is no base64.
    """
    plain = text.strip(b"\r\n\t").translate(_STANDARD).rstrip(b"=")
    try:
        return binascii.a2b_base64(plain + _PADDING[: -len(plain) % 4], strict_mode=True)
    except binascii.Error as error:
        raise malformed("this is not base64") from error
