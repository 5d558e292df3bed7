"""The gallery, written before each build into gallery/schemes/: a card for each scheme of the catalogue."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx
from weakorder.reports.pages.gallery import write_gallery


def write_pages(app: Sphinx) -> None:
    """Write the pages and pictures that are missing or stale, and drop those of what is gone."""
    folder = Path(app.srcdir) / "gallery" / "schemes"
    written = set(write_gallery(folder))
    for path in folder.rglob("*"):
        if path.is_file() and path not in written:
            path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before they are looked for."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
