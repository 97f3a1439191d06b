"""A report as one HTML file that asks for nothing else: no network, no script, no font, every picture inside."""

from __future__ import annotations

import base64
import io
import warnings

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from medcli.report.document import Document, Picture
from medcli.report.escaping import html_text, sentence

__all__ = ["drawn", "render_html"]


def render_html(document: Document) -> str:
    """The file's text."""
    environment = Environment(
        loader=PackageLoader("medcli.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["prose"] = lambda text: Markup(html_text(text))
    environment.filters["sentence"] = lambda text: Markup(html_text(sentence(text)))
    environment.filters["source"] = _source
    environment.filters["number"] = repr
    template = environment.get_template("report.html.jinja")
    return template.render(document=document)


def drawn(figure: Figure, kind: str) -> bytes:
    """A plot as `svg` or `png`."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the text beside the picture has it right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        if kind == "svg":
            FigureCanvasSVG(figure)
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(stream, format="svg", metadata=nothing)
        else:
            FigureCanvasAgg(figure)
            figure.savefig(stream, format="png", dpi=160)
    return stream.getvalue()


def _source(picture: Picture) -> str:
    """The picture as a data URI. An image element runs no script, whatever an SVG may hold."""
    if picture.figure is None:
        return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn(picture.figure, 'svg')).decode()}"
