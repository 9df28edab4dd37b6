"""The documentation site: Sphinx reads the pages of this folder, and the API from docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import zstreamer

project = "zstreamer"
author = "the zstreamer authors"
version = release = zstreamer.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"zstreamer {release}"
html_static_path = []
exclude_patterns = ["benchmarks/*", "_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = [
    "misc.highlighting_failure",  # consoles with output, which are no shell
    "myst.xref_missing",  # links to files of the repository beside the pages
]
pygments_style = "default"

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True


def setup(app):
    """A module's docstring, with its picture, is for those who read the file."""

    def clear(_app, what, _name, _object, _options, lines):
        if what == "module":
            lines.clear()

    app.connect("autodoc-process-docstring", clear)
