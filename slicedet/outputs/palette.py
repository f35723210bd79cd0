"""One colour per class, the same in overlays and QGIS styles."""

from __future__ import annotations

Colour = tuple[int, int, int]

_HEX = (
    "F0E442 56B4E9 D55E00 CC79A7 009E73 E69F00 0072B2 87FFFF 961E4B A569FF 5A00E1 A5D296 "
    "C3FFB4 C30F96 965A4B 87D2FF 87B478 D22DD2 784B00 780FB4 F0C34B A500FF 006978 7896F0"
)
# The first seven are those of Okabe and Ito (Color Universal Design, 2008), black left out. Each of the others was
# chosen to be as far as possible, in Oklab, from all before it, in the eyes of people with normal, protan, deutan and
# tritan vision (simulated after Machado et al., 2009).
COLOURS: tuple[Colour, ...] = tuple((int(h[:2], 16), int(h[2:4], 16), int(h[4:], 16)) for h in _HEX.split())


def colour(class_id: int) -> Colour:
    """Red, green and blue, 0..255, of a class; they repeat after 24 classes."""
    return COLOURS[class_id % len(COLOURS)]
