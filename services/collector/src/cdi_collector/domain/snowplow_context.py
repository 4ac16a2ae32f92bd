"""Where, on what and with what: the tracker parameters that Segment has a place for in ``context``."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

_SIZE: Final = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
_TRACKER: Final = re.compile(r"([a-z][a-z0-9_-]*?)-(v?[0-9].*)")


def take_context(rest: dict[str, str]) -> dict[str, Any]:
    """The members of ``context`` that parameters fill.

    Args:
        rest: parameters that nobody has taken yet; what is taken here is taken out. One in another form than the protocol's stays.
    """
    context: dict[str, Any] = {}
    for parameter, member in (("ip", "ip"), ("ua", "userAgent"), ("lang", "locale"), ("tz", "timezone")):
        if (text := rest.pop(parameter, None)) is not None:
            context[member] = text
    if page := _page(rest):
        context["page"] = page
    screen: dict[str, int] = {}
    for parameter, width, height in (("res", "width", "height"), ("vp", "innerWidth", "innerHeight")):
        if size := _SIZE.fullmatch(rest.get(parameter, "")):
            screen |= {width: int(size[1]), height: int(size[2])}
            del rest[parameter]
    if screen:
        context["screen"] = screen
    if library := _library(rest):
        context["library"] = library
    return context


def _page(rest: dict[str, str]) -> dict[str, str]:
    page: dict[str, str] = {}
    if (url := rest.pop("url", None)) is not None:
        page["url"] = url
        try:
            parts = urlsplit(url)
        except ValueError:
            pass
        else:
            page |= {"path": parts.path, "search": f"?{parts.query}" if parts.query else ""}
    for parameter, member in (("page", "title"), ("refr", "referrer")):
        if (text := rest.pop(parameter, None)) is not None:
            page[member] = text
    return page


def _library(rest: dict[str, str]) -> dict[str, str]:
    library: dict[str, str] = {}
    if (tracker := _TRACKER.fullmatch(rest.get("tv", ""))) is not None:
        library = {"name": f"snowplow-{tracker[1]}", "version": tracker[2]}
        del rest["tv"]
    if (namespace := rest.pop("tna", None)) is not None:
        library["namespace"] = namespace
    return library
