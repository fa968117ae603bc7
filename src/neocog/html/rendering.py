"""A page becomes text. Room html; floor 1. May import floor 0, jinja2 and this room.

A block with the tag `x` that does more than stand there brings `x.html.j2`, which shows the value
`block`, and may bring `x.css` and `x.js`. Style and script are only on the pages that hold such a
block; `x_part.js` stands before `x.js`, in the same scope. All scripts of a page are one element,
and the policy allows the hash of just that text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from neocog.files import write_atomic
from neocog.html.blocks import Cell, Pictures, Table
from neocog.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Environment

    from neocog.html.page import Page

__all__ = ["render", "write"]


def _anchors(titles: tuple[str, ...]) -> list[str]:
    """One unique fragment name for each title."""
    anchors: list[str] = []
    for title in titles:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        # The prefix keeps titles apart from the template's own names.
        anchor = base = f"s-{slug}"
        count = 2
        while anchor in anchors:
            anchor, count = f"{base}-{count}", count + 1
        anchors.append(anchor)
    return anchors


def _finalize(value: Any) -> Any:
    """Every value that the template prints goes through here before it is escaped."""
    return printable(value, lines=True) if type(value) is str else value


@functools.cache
def _environment() -> Environment:
    """Where templates come from and how values get into them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("neocog", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )


@functools.cache
def _joined(ending: str, names: tuple[str, ...]) -> str:
    """The files of these names and this ending, one after the other; empty where there are none."""
    folder = list(resources.files("neocog.html").iterdir())
    texts = []
    for name in names:
        files = {one.name: one for one in folder if _belongs(one.name, name, ending)}
        order = sorted(files, key=lambda file: (file == f"{name}.{ending}", file))
        text = "".join(files[file].read_text(encoding="utf-8") for file in order)
        texts.append(f"{{\n{text}}}\n" if text and ending == "js" else text)
    return ('"use strict";\n' if ending == "js" else "") + "".join(texts)


def _belongs(file: str, name: str, ending: str) -> bool:
    """Whether a file is a block's, or a part of it.

    >>> _belongs("tracer_sums.js", "tracer", "js"), _belongs("tracer.css", "tracer", "js")
    (True, False)
    """
    return re.fullmatch(rf"{name}(_[a-z]+)?\.{ending}", file) is not None


def render(page: Page) -> str:
    """The whole file. Equal pages give equal text.

    Raises:
        ValueError: two pictures of one anchor, or a link that leads nowhere.

    >>> from neocog.html import Page
    >>> "&lt;b&gt;" in render(Page(title="<b>"))
    True
    """
    from markupsafe import Markup

    tags = {block.tag for section in page.sections for block in section.blocks}
    parts = ("page", *sorted(tags))
    script = _joined("js", parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    anchors = _anchors(tuple(section.title for section in page.sections))
    _check_links(page, anchors)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            anchors=anchors,
            style=Markup(_joined("css", parts)),
            script=Markup(script),
            policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        )
    )


def _check_links(page: Page, sections: list[str]) -> None:
    """Every fragment is there once, and every link leads to one."""
    blocks = [block for section in page.sections for block in section.blocks]
    anchors = [item.anchor for b in blocks if isinstance(b, Pictures) for item in b.items]
    anchors = [*sections, "content", *filter(None, anchors)]
    if len(set(anchors)) < len(anchors):
        twice = next(one for at, one in enumerate(anchors) if one in anchors[:at])
        raise ValueError(f"expected one place of each anchor, found {twice!r} twice")
    cells = (cell for b in blocks if isinstance(b, Table) for row in b.rows for cell in row)
    links = {cell.link for cell in cells if isinstance(cell, Cell)} - {"", *anchors}
    if links:
        raise ValueError(f"expected a place on the page for each link, found none for {links}")


def write(page: Page, path: Path) -> Path:
    """Render into `path`, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    write_atomic(path, render(page))
    return path
