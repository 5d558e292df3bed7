"""How the site is built: Sphinx, Markdown through MyST, formulas as MathML, API pages from docstrings.

Nothing is fetched, neither here nor by a reader's browser. Warnings are errors (`make docs`), and so is a reference
that leads nowhere.
"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "weakorder"
author = "The weakorder authors"
copyright = "2026, the weakorder authors"
release = version = metadata.version("weakorder")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_design",
    "mathml",
    "docstrings",
    "api_pages",
    "json_schema",
    "gallery_pages",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are kept without their outputs, and run where they are built; the tests run them, too.
nb_execution_mode = "auto"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True

smartquotes = False  # of two hyphens it would make a dash

html_theme = "furo"
html_title = f"weakorder {release}"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"  # without one a browser asks for one
html_css_files = ["weakorder.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
autodoc_inherit_docstrings = False
# Types in signatures that have no page: other packages', and those of rooms that do not offer them.
nitpick_ignore_regex = [
    ("py:.*", r"(?!weakorder\.).*"),
    ("py:class", r"weakorder\.(verification|reports|.*\.kernels|.*\._).*"),
]
