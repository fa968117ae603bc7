"""Who a request thinks it talks to, and which page sent it. Floor 4, room serve; standard library.

A browser asks whatever address a page names, and a name that first led to the page's own server may
lead to this machine a moment later (DNS rebinding). So a server that is meant for this machine
alone answers to its own names only, and none works for pages of others.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LOOPBACK", "check_host", "check_page"]

LOOPBACK = ("localhost", "127.0.0.0/8", "::1")
"""Names and addresses of this machine, for itself."""


def check_host(authority: str, hosts: Sequence[str]) -> None:
    """That a request is meant for this server.

    Args:
        authority: the field `Host`: a name or address, with or without a port; empty: none.
        hosts: names, addresses and networks that are answered to; empty: any.

    Raises:
        RequestError: 421.

    >>> check_host("127.0.0.1:8000", LOOPBACK), check_host("elsewhere.example", ())
    (None, None)
    """
    if hosts and not _named(_name(f"//{authority}"), hosts):
        text = "this server does not answer to that Host; it is told other names when it starts"
        raise RequestError(421, text, reason="host")


def check_page(authority: str, origin: str, site: str, hosts: Sequence[str]) -> None:
    """That no page of somebody else asks for work.

    Args:
        authority: the field `Host`.
        origin: the field `Origin`; empty: none.
        site: the field `Sec-Fetch-Site`; empty: none.
        hosts: see `check_host`; pages of those that are named may ask.

    Raises:
        RequestError: 403.
    """
    name = _name(origin)
    own = not origin or (name and (name == _name(f"//{authority}") or _named(name, hosts)))
    if not own or site.strip().lower() == "cross-site":
        raise RequestError(403, "pages of other sites may not ask this server", reason="origin")


def _name(address: str) -> str:
    """The host of an address, in small letters; empty: there is none.

    >>> _name("//LocalHost:80"), _name("http://[::1]:80"), _name("//a@b"), _name("null")
    ('localhost', '::1', '', '')
    """
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for what is no number
    except ValueError:
        return ""
    odd = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    return "" if odd else (parts.hostname or "").removesuffix(".")


def _named(name: str, hosts: Sequence[str]) -> bool:
    """Whether a host is one of these."""
    wanted = [one.strip("[]").lower() for one in hosts]
    if not name or name in wanted:
        return bool(name)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in network for network in map(_network, wanted) if network)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
