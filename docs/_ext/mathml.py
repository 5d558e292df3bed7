"""Formulas as MathML, which browsers set themselves: no script, no network. A formula that cannot be read is a warning.

The font, STIX Two Math, comes from a package that ships it, and stands beside the pages.
"""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
# What stands around a whole display says nothing that the rows in it do not.
_AROUND = re.compile(r"\\(?:begin|end)\{(?:align|equation|gather)\*?\}")


def _mathml(node: nodes.math | nodes.math_block, as_block: bool) -> str:
    latex = _AROUND.sub("", node.astext()).strip()
    braces = re.sub(r"\\[{}]", "", latex)
    try:
        if braces.count("{") != braces.count("}"):  # which the converter closes as it likes
            raise MathError("its braces do not match")
        return latex2mathml.tex2mathml(latex, as_block=as_block)
    except MathError as error:
        logger.warning("cannot set %r: %s", latex, error, location=node)
        return f"<code>{latex}</code>"


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """A formula in a line."""
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """A displayed formula, with its number where it has a label."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if number := node.get("number"):
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(_mathml(node, as_block=True) + "</div>\n")
    raise nodes.SkipNode


def _font(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        with resources.as_file(resources.files("ziamath.fonts") / "STIXTwoMath-Regular.ttf") as font:
            shutil.copyfile(font, Path(app.outdir) / "_static" / "math.ttf")


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("build-finished", _font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
