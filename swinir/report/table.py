"""Text of pages that are made without templates."""

from html import escape

from swinir.report.html import visible


def escaped(value: str) -> str:
    """Escape text for an element or an attribute; unprintable characters become visible."""
    return escape(visible(value))
