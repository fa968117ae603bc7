"""What a reader reads of a page."""

from __future__ import annotations

import re
from html import unescape


def plain(page: str) -> str:
    """Its text, spaces made one."""
    page = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def headings(page: str) -> list[str]:
    """Of its sections."""
    return [unescape(text) for text in re.findall(r"<h2[^>]*>(.*?)</h2>", page)]
