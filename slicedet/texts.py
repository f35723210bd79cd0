"""Texts of strangers, such as names of files, models and categories, as people are to see them."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text with all but line breaks spelled out that is not printable: control characters would rule the terminal."""
    return "".join(each if each == "\n" or each.isprintable() else ascii(each)[1:-1] for each in text)
