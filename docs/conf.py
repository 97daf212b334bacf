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
