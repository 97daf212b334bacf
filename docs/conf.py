"""Sphinx builds the documentation: `make docs`. Warnings are errors."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from coldbench.core import __version__  # noqa: E402

project = "coldbench"
author = "the coldbench maintainers"
copyright = author
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"coldbench {__version__}"
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = html_copy_source = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
suppress_warnings = ["myst.strikethrough"]

# What the theme leaves out, so that axe-core finds nothing: levels of headings, names of landmarks, and that what
# scrolls sideways can be reached by the keyboard.
ACCESSIBLE = {
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages">',
    '<aside class="toc-drawer"': '<aside class="toc-drawer" aria-label="This page"',
    '<aside class="toc-drawer no-toc"': '<aside class="toc-drawer no-toc" aria-label="This page"',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}


def make_accessible(app, exception):
    """Complete the pages that the theme wrote."""
    for page in Path(app.outdir).glob("*.html"):
        text = page.read_text("utf-8")
        for old, new in ACCESSIBLE.items():
            text = text.replace(old, new)
        page.write_text(text, "utf-8")


def setup(app):
    app.connect("build-finished", make_accessible)
