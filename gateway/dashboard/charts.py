"""Charts for the dashboard: a small JSON description becomes an SVG, drawn by pygal, without a style or script in it.

The page's own style sheet colours it, so that it passes `style-src 'self'` and follows light and dark. Each point
carries its words (for a pointer, the keyboard and a screen reader) and may be a link to what is behind it.
"""

import math
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import Annotated, Any, Final, Literal
from xml.etree.ElementTree import Element

import msgspec
from msgspec import Meta, Struct

MAX_SERIES: Final = 12
MAX_POINTS: Final = 120
"""Of one series: a quarter of a year by days, or five days by hours."""
MAX_BODY_BYTES: Final = 256 * 1024
"""What describes a chart."""
LEAST: Final = 1e-300
"""Less is nothing: of such numbers a part may be zero."""
LABEL_FONT_PX: Final = 11
"""As in the style sheet: room for the labels is reckoned with it."""
LINKS_BELOW: Final = "/dashboard/"
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold, escaped or not."""

Kind = Literal["bars", "stacked-bars", "lines", "time-line"]
Unit = Literal["usd", "count", "seconds", "ms", "percent"]

_NAMES: Final[dict[Kind, str]] = {
    "bars": "Bar",
    "stacked-bars": "StackedBar",
    "lines": "Line",
    "time-line": "HorizontalStackedBar",
}

Value = Annotated[float, Meta(ge=-1e15, le=1e15)]


class ChartError(ValueError):
    """What was asked for is no chart."""


class Series(Struct, frozen=True, forbid_unknown_fields=True):
    """One colour: a value per label, None where there is none."""

    name: Annotated[str, Meta(max_length=500)]
    values: Annotated[list[Value | None], Meta(max_length=MAX_POINTS)]
    texts: Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=MAX_POINTS)] = []
    """What is said of each point; absent: its value."""
    links: Annotated[list[Annotated[str, Meta(max_length=2000)] | None], Meta(max_length=MAX_POINTS)] = []
    colour: Annotated[int, Meta(ge=0, le=MAX_SERIES)] | None = None
    """Which of the style sheet's colours; absent: its place among the series."""


class Chart(Struct, frozen=True, forbid_unknown_fields=True):
    """What to draw."""

    kind: Kind
    label: Annotated[str, Meta(max_length=500)]
    """What a screen reader says of the whole."""
    labels: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=MAX_POINTS)]
    """Under (a time line: beside) the points, each once."""
    series: Annotated[list[Series], Meta(max_length=MAX_SERIES)]
    unit: Unit = "count"
    width: Annotated[int, Meta(ge=120, le=4000)] = 720
    height: Annotated[int, Meta(ge=60, le=2000)] = 260
    every: Annotated[int, Meta(ge=1, le=MAX_POINTS)] = 1
    """Each how many-th label is written."""


_decoder: Final = msgspec.json.Decoder(Chart)


def draw(body: bytes) -> bytes:
    """The SVG of a chart. Takes tens of milliseconds: not for an event loop.

    Args:
        body: A `Chart` as JSON.

    Raises:
        ChartError: It is none.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ChartError(f"a chart is described in at most {MAX_BODY_BYTES} bytes")
    try:
        chart = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChartError(f"this describes no chart: {error}") from error
    if not chart.labels or not chart.series:
        raise ChartError("a chart has a label and a series at least")
    for series in chart.series:
        if len(series.values) != len(chart.labels):
            raise ChartError(f"the chart has {len(chart.labels)} labels and a series of {len(series.values)} values")
        if any(link is not None and not link.startswith(LINKS_BELOW) for link in series.links):
            raise ChartError(f"links lead to pages below {LINKS_BELOW}")
    return _drawn(chart)


def _pygal() -> ModuleType:
    """Imported on the first chart: it takes longer than the rest of the gateway's start together."""
    pygal = import_module("pygal")
    # It adds a finder for plug-ins, which Python warns of at every import from then on. Only this one goes: pygal also
    # imports importlib_metadata, whose finder takes the place of Python's own for what is installed in which version.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]
    return pygal


def _drawn(chart: Chart) -> bytes:
    pygal = _pygal()
    style = import_module("pygal.style").Style(
        label_font_size=LABEL_FONT_PX, major_label_font_size=LABEL_FONT_PX, value_font_size=LABEL_FONT_PX
    )
    look: dict[str, Any] = {"style": style, "css": [], "js": [], "no_prefix": True, "disable_xml_declaration": True}
    look |= {"show_legend": False, "print_values": False, "margin": 4, "spacing": 6, "dots_size": 3, "no_data_text": ""}
    axes = {"min_scale": 2, "max_scale": 5, "include_x_axis": True, "truncate_label": -1, "show_minor_x_labels": False}
    options: dict[str, Any] = look | axes | {"width": chart.width, "height": chart.height}
    labels = [_words(label) for label in chart.labels]
    options["x_labels_major"] = labels[:: chart.every]
    ticks = _ticks(chart)
    options["range"] = (0, ticks[-1])
    figure = getattr(pygal, _NAMES[chart.kind])(**options)
    figure.x_labels = labels
    figure.y_labels = ticks
    figure.value_formatter = _FORMATS[chart.unit]
    if chart.kind == "time-line":
        figure.show_minor_x_labels = True
        figure.show_minor_y_labels = True
    for series in chart.series:
        # What is nothing is not drawn; the label says which point one is, as those left out are not counted.
        figure.add(_words(series.name), [_point(chart, at, value) for at, value in enumerate(series.values)])
    figure.add_xml_filter(partial(_cleaned, chart))
    drawn: str = figure.render()
    return drawn.encode()


def _ticks(chart: Chart) -> list[float]:
    """The scale: from zero, in three to six steps of 1, 2, 2.5 or 5 times a power of ten, to above all values."""
    columns = zip(*([value or 0 for value in series.values] for series in chart.series), strict=True)
    highest = max((max(one) if chart.kind == "lines" else sum(one) for one in columns), default=0)
    if highest < LEAST:
        return [0, 1]
    size = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(size * part for part in (1, 2, 2.5, 5, 10) if size * part >= highest / 5)
    return [step * at for at in range(math.ceil(highest / step) + 1)]


def _point(chart: Chart, at: int, value: float | None) -> dict[str, Any] | None:
    if value is None or (value == 0 and chart.kind != "lines"):
        # A time line's first series is the space before; it has to be there for what stands on it.
        return {"value": 0, "label": str(at)} if chart.kind == "time-line" else None
    return {"value": value, "label": str(at)}


def _cleaned(chart: Chart, root: Element) -> Element:
    """Without what a strict policy refuses, and with words, links and a way for the keyboard."""
    for child in [one for one in root if one.tag != "g"]:  # comments, definitions (the styles), a title
        root.remove(child)
    root.attrib.pop("id", None)
    root.set("role", "group")
    root.set("aria-label", _words(chart.label))
    for group in root.iter("g"):
        kinds = group.get("class", "").split()
        for child in [one for one in group if one.get("class") == "plot tooltip-overlay"]:
            group.remove(child)
        if "series" in kinds:
            _name_points(group, chart, int(kinds[1].removeprefix("serie-")))
    # The scale's own titles would be read one by one.
    for group in root.iter("g"):
        for title in group.findall("title"):
            group.remove(title)
    return root


def _name_points(group: Element, chart: Chart, number: int) -> None:
    series = chart.series[number]
    colour = number if series.colour is None else series.colour
    group.set("class", f"series colour-{colour}")
    for holder in group.iter("g"):
        label = holder.find("desc[@class='label']")
        shape = next(chain(holder.findall("rect"), holder.findall("circle")), None)
        if label is None or label.text is None or shape is None:
            continue
        at = int(label.text)
        for child in list(holder):
            holder.remove(child)
        text = series.texts[at] if at < len(series.texts) else f"{series.name}: {series.values[at]}"
        link = series.links[at] if at < len(series.links) else None
        shape.set("class", "point")
        point = shape if link is None else Element("a", {"href": _words(link)})
        if point is not shape:
            point.append(shape)
        point.set("aria-label", _words(text))
        point.set("tabindex", "-1")
        point.set("data-series", str(number))
        point.set("data-point", str(at))
        if link is None:
            point.set("role", "img")
        holder.append(point)


def _words(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _usd(value: float) -> str:
    if abs(value) >= 1000:
        return f"${value:,.0f}"
    # Three digits that count, written out: nobody reads 2e-05 as money. More than nano-dollars there are not.
    return f"${value:.3g}" if value == 0 or abs(value) >= 1e-4 else "$" + f"{value:.9f}".rstrip("0").rstrip(".")


def _ms(value: float) -> str:
    return f"{value / 1000:.3g} s" if abs(value) >= 1000 else f"{value:.3g} ms"


def _s(value: float) -> str:
    return f"{value:.3g} s"


def _percent(value: float) -> str:
    return f"{value:.3g} %"


_FORMATS: Final[dict[Unit, Callable[[float], str]]] = {
    "usd": _usd,
    "count": _short,
    "seconds": _s,
    "ms": _ms,
    "percent": _percent,
}
