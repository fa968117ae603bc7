"""The page to try a model with a picture. Floor 4, room serve; imports jinja2, as html does.

One file without outside requests. It looks like all pages (`html/page.css`); its policy allows no
script and no style but those in it, by their hashes, and no address but this server's.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from neocog.serve.replies import Reply
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.serve.limits import Limits
    from neocog.serve.served import Served

__all__ = ["render"]


def render(models: Sequence[Served], limits: Limits) -> Reply:
    """The page.

    Args:
        models: that can be tried.
        limits: bounds, which it tells.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    here = resources.files("neocog.serve")
    shared = resources.files("neocog.html").joinpath("page.css").read_text(encoding="utf-8")
    style = shared + here.joinpath("page.css").read_text(encoding="utf-8")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("neocog", "serve"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    text = environment.get_template("page.html.j2").render(
        models=[one.about() for one in models],
        style=Markup(style),
        script=Markup(script),
        body=_size(limits.body),
        decoded=_size(limits.decoded),
        seconds=f"{limits.seconds:g}",
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(chr(10) + style)}'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = (("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer"))
    return Reply(200, text.encode(), "text/html; charset=utf-8", headers)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _size(count: int) -> str:
    """Bytes for people.

    >>> _size(10 * 2**20), _size(1500)
    ('10 MiB', '1,500 bytes')
    """
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count:,} bytes"
