"""Settings of the documentation; build it with ``tox -e docs``."""

from __future__ import annotations

import fastadam

project = "fastadam"
author = copyright = "the fastadam authors"
release = version = fastadam.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.mathjax", "numpydoc"]

# Single backquotes in docstrings name parameters and methods.
default_role = "literal"

autodoc_member_order = "bysource"
# Types are told by the Parameters sections.
autodoc_typehints = "none"
autoclass_content = "class"
numpydoc_show_class_members = False

html_theme = "alabaster"
html_theme_options = {"description": "The Adam family of optimizers", "page_width": "1000px"}
exclude_patterns = ["_build"]
