"""Markdown as a host that looks for mentions reads it."""

from __future__ import annotations

import html
import re


def reading(markdown: str) -> str:
    """What looks for mentions sees: the text outside code and comments, its entities read."""
    text = re.sub(r"<!--.*?-->", " ", markdown, flags=re.S)
    text = re.sub(r"(?is)<code>.*?</code>", " ", text)
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text))
