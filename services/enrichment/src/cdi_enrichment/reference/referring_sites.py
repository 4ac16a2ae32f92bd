"""Sites that send visitors: a hand-made table of well-known names, domains and the query parameter that held the search words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Site(NamedTuple):
    """One site.

    Attributes:
        name: as people call it.
        medium: ``search``, ``social`` or ``email``.
        parameters: query parameters that hold the search words.
    """

    name: str
    medium: str
    parameters: tuple[str, ...] = ()


_SEARCH: Final = (
    ("Google", "q", "google.com com.google.android.googlequicksearchbox googleadservices.com"),
    ("Bing", "q", "bing.com"),
    ("DuckDuckGo", "q", "duckduckgo.com"),
    ("Yahoo", "p", "yahoo.com search.yahoo.com"),
    ("Ecosia", "q", "ecosia.org"),
    ("Qwant", "q", "qwant.com"),
    ("Startpage", "query", "startpage.com"),
    ("Brave", "q", "search.brave.com"),
    ("Yandex", "text", "yandex.com yandex.ru ya.ru"),
    ("Baidu", "wd", "baidu.com"),
    ("Sogou", "query", "sogou.com"),
    ("Naver", "query", "naver.com"),
    ("Seznam", "q", "seznam.cz"),
    ("Ask", "q", "ask.com"),
    ("AOL", "q", "search.aol.com"),
    ("Swisscows", "query", "swisscows.com"),
    ("Mojeek", "q", "mojeek.com"),
    ("Kagi", "q", "kagi.com"),
    ("Perplexity", "q", "perplexity.ai"),
)
_SOCIAL: Final = (
    ("Facebook", "facebook.com fb.com fb.me messenger.com"),
    ("Instagram", "instagram.com"),
    ("Threads", "threads.net threads.com"),
    ("X", "x.com twitter.com t.co"),
    ("LinkedIn", "linkedin.com lnkd.in"),
    ("YouTube", "youtube.com youtu.be"),
    ("TikTok", "tiktok.com"),
    ("Reddit", "reddit.com redd.it"),
    ("Pinterest", "pinterest.com pinterest.de pinterest.co.uk pinterest.fr pin.it"),
    ("Snapchat", "snapchat.com"),
    ("WhatsApp", "whatsapp.com wa.me"),
    ("Telegram", "telegram.org t.me"),
    ("Discord", "discord.com"),
    ("Mastodon", "mastodon.social mastodon.online"),
    ("Bluesky", "bsky.app"),
    ("Tumblr", "tumblr.com"),
    ("Quora", "quora.com"),
    ("VK", "vk.com"),
    ("Weibo", "weibo.com weibo.cn"),
    ("Xing", "xing.com"),
    ("Hacker News", "news.ycombinator.com"),
    ("GitHub", "github.com"),
    ("Stack Overflow", "stackoverflow.com"),
    ("Medium", "medium.com"),
    ("Twitch", "twitch.tv"),
    ("Vimeo", "vimeo.com"),
    ("LINE", "line.me"),
)
_EMAIL: Final = (
    ("Gmail", "mail.google.com com.google.android.gm"),
    ("Outlook", "outlook.com outlook.live.com outlook.office.com outlook.office365.com mail.live.com"),
    ("Yahoo Mail", "mail.yahoo.com"),
    ("AOL Mail", "mail.aol.com"),
    ("Proton Mail", "mail.proton.me mail.protonmail.com"),
    ("iCloud Mail", "icloud.com"),
    ("GMX", "gmx.net gmx.com gmx.de"),
    ("WEB.DE", "web.de"),
    ("Fastmail", "fastmail.com"),
    ("Zoho Mail", "mail.zoho.com mail.zoho.eu"),
    ("Yandex Mail", "mail.yandex.com mail.yandex.ru"),
    ("Mail.ru", "e.mail.ru"),
)


def _table() -> dict[str, Site]:
    sites: dict[str, Site] = {}
    for name, parameter, domains in _SEARCH:
        sites.update(dict.fromkeys(domains.split(), Site(name, "search", (parameter,))))
    for medium, group in (("social", _SOCIAL), ("email", _EMAIL)):
        for name, domains in group:
            sites.update(dict.fromkeys(domains.split(), Site(name, medium)))
    return sites


SITES: Final[Mapping[str, Site]] = _table()
"""By domain, without ``www.``; a subdomain belongs to the nearest entry above it."""
