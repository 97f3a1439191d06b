"""Text in the two languages a report is written in; whatever comes from data is escaped here and nowhere else."""

from __future__ import annotations

import re
from html import escape

__all__ = ["html_text", "markdown_text", "sentence"]

_CODE = re.compile(r"`([^`]+)`")
_SPECIAL = re.compile(r"([\\*_{}\[\]<>()#+!|~$-])")
_TOGETHER = re.compile(r"\[[^\[\]]{1,40}\]|→ \S+|(?<=\d) %|\bp [<=] [\d.]+|\b[abcT] -?\d\S*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def html_text(text: str) -> str:
    """Escaped HTML, with `code` between backticks as such; intervals, shares and what follows an arrow stay whole."""
    parts = _CODE.split(_clean(text))
    whole = [escape(part if index % 2 else _TOGETHER.sub(_unbroken, part)) for index, part in enumerate(parts)]
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(whole))


def _unbroken(found: re.Match[str]) -> str:
    return found[0].replace(" ", "\N{NO-BREAK SPACE}")


def markdown_text(text: str) -> str:
    """Escaped Markdown in one line, with `code` between backticks kept."""
    parts = _CODE.split(_clean(text).replace("\n", " "))
    return "".join(_code(part) if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _code(text: str) -> str:
    """Between backticks only the bar of a table means something; what looks like a tag is not left to the reader."""
    return _escaped(text) if "<" in text else f"`{text.replace('|', chr(92) + '|')}`"


def sentence(text: str) -> str:
    """With a capital, unless it begins with code, and a full stop."""
    if not text:
        return text
    ended = text if text.endswith((".", "!", "?", ":")) else f"{text}."
    return ended[:1].upper() + ended[1:]


def _escaped(text: str) -> str:
    plain = text.replace("&", "&amp;").replace("`", "'")
    return _SPECIAL.sub(r"\\\1", plain).replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def _clean(text: str) -> str:
    """Without characters that no document may hold, or that turn the direction of the text round."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
