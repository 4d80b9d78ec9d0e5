"""Sphinx configuration: `sphinx-build -W --keep-going docs build/docs` needs no network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extension"), str(HERE.parent)]

project = "Vitrine"
author = "The Vitrine authors"
project_copyright = "Apache-2.0"
extensions = ["myst_parser", "generated_pages"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
exclude_patterns = ["_extension", "Thumbs.db", ".DS_Store"]
html_theme = "furo"
html_title = "Vitrine"
html_copy_source = False
html_show_sphinx = False
pygments_style = "tango"
