"""QGIS styles (QML): one coloured outline per class, with labels at large scales."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as xml

from slicedet.outputs.palette import Colour, colour

_OTHER: Colour = (255, 255, 255)
_LINE_MM = "0.5"
_LABELS_BELOW_SCALE = "1500"
"""Labels appear from 1:1500 on: there, a car is about 3 mm long on the screen."""

_OUTSIDE_POLYGONS = "8"
_LABEL = '"class" || \' \' || format_number("score", 2)'


def qml(categories: Sequence[str], found: Iterable[int]) -> str:
    """A QGIS layer style for the detections' table, with a category for each id found."""
    return style([(categories[i], colour(i)) for i in sorted(found)])


def style(classes: Sequence[tuple[str, Colour]]) -> str:
    """A QGIS layer style that draws each named class in its colour, and any other in white."""
    root = xml.Element("qgis", version="3.22.0", styleCategories="Symbology|Labeling", labelsEnabled="1")
    renderer = xml.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class", symbollevels="0")
    categories = xml.SubElement(renderer, "categories")
    symbols = xml.SubElement(renderer, "symbols")
    # QGIS takes the empty value for all others.
    for i, (name, rgb) in enumerate([*classes, ("", _OTHER)]):
        label = name or "other"
        xml.SubElement(categories, "category", value=name, label=label, symbol=str(i), type="string", render="true")
        symbol = xml.SubElement(
            symbols, "symbol", type="fill", name=str(i), alpha="1", clip_to_extent="1", force_rhr="0"
        )
        layer = xml.SubElement(symbol, "layer", {"class": "SimpleLine"}, enabled="1", locked="0")
        _options(
            layer,
            line_color=",".join(map(str, (*rgb, 255))),
            line_style="solid",
            line_width=_LINE_MM,
            line_width_unit="MM",
            joinstyle="miter",
        )
    _add_labels(root)
    xml.indent(root)
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + xml.tostring(root, encoding="unicode") + "\n"
    )


def _add_labels(root: xml.Element) -> None:
    settings = xml.SubElement(xml.SubElement(root, "labeling", type="simple"), "settings", calloutType="simple")
    text = xml.SubElement(
        settings,
        "text-style",
        fieldName=_LABEL,
        isExpression="1",
        fontFamily="Sans Serif",
        fontWeight="50",
        fontSize="8",
        fontSizeUnit="Point",
        textColor="0,0,0,255",
        textOpacity="1",
    )
    xml.SubElement(
        text,
        "text-buffer",
        bufferDraw="1",
        bufferSize="0.7",
        bufferSizeUnits="MM",
        bufferColor="255,255,255,255",
        bufferOpacity="1",
    )
    xml.SubElement(settings, "placement", placement=_OUTSIDE_POLYGONS, dist="0.5", distUnits="MM")
    xml.SubElement(
        settings,
        "rendering",
        drawLabels="1",
        obstacle="1",
        scaleVisibility="1",
        scaleMin="0",
        scaleMax=_LABELS_BELOW_SCALE,
    )


def _options(layer: xml.Element, **values: str) -> None:
    options = xml.SubElement(layer, "Option", type="Map")
    for name, value in values.items():
        xml.SubElement(options, "Option", name=name, value=value, type="QString")
