"""Text that others wrote, made fit to be shown. Floor 0: standard library only."""

from __future__ import annotations

__all__ = ["printable"]

_WANTED = frozenset("\u00a0\u202f\u2009\u200c\u200d")
"""What text needs though `str.isprintable` says no: spaces of set width, and the joiners of
Persian, Indic scripts and emoji."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with what cannot be seen spelled out: controls, direction marks, bytes that are no
    UTF-8 (as Python's file names carry them), lone surrogates.

    Args:
        text: a file's name, a class name, a line of a log.
        lines: let line ends and tabs stand.

    >>> printable("a\x00b\u202egnp"), printable("naïve 猫 👍")
    ('a\\x00b\\u202egnp', 'naïve 猫 👍')
    >>> printable("a\udcffb\n.jpg"), printable("two\nlines", lines=True)
    ('a\\xffb\\n.jpg', 'two\nlines')
    """
    if text.isprintable():
        return text
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte: not from a file system
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    shown = _WANTED | set("\n\t") if lines else _WANTED
    return "".join(
        char if char.isprintable() or char in shown else char.encode("unicode_escape").decode()
        for char in text
    )
