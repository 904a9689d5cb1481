"""Settings of Sphinx, which builds these pages offline: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

from monai_unetpp.version import __version__

project = "monai-unetpp"
author = project_copyright = "The monai-unetpp developers"
version = release = __version__

# the guides are Markdown, for GitHub too; docstrings are in Google style and refer to each other as Sphinx does
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# an em dash or a curly quote would change commands that are copied
smartquotes = False

# links to headings, as GitHub makes them
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# links to files of the repository outside of these pages work on GitHub; a test follows them all
suppress_warnings = ["myst.xref_missing"]

autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# what is not documented here (torch, MONAI, Python) is no link; a name of the package that leads nowhere is an error
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!monai_unetpp\b).*"), (r"py:.*", r".*\._K")]
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Nested U-Nets (UNet++) for MONAI that really get pruned",
    "page_width": "1100px",
    "sidebar_width": "240px",
}
# the side bar has little room
toc_object_entries_show_parents = "hide"
# nothing but HTML: no copy of the sources
html_copy_source = False
