"""Settings of Sphinx for the course's site; `poflow-lite course site OUT` lays out the pages and runs it."""

import sys
from pathlib import Path

import poflow_lite

sys.path.insert(0, str(Path(__file__).parent))

project = "poflow_lite"
author = "The poflow_lite authors"
copyright = "The poflow_lite authors, MIT licence"
version = release = poflow_lite.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "hooks",
]
exclude_patterns = ["downloads", "CHANGELOG.md", "CONTRIBUTING.md", "examples"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Lessons are shown as they were executed.
nb_execution_mode = "off"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_ipywidgets_js = {}  # sliders are players, which bring their own script; widgets would fetch theirs
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
myst_all_links_external = False
smartquotes_action = "D"  # dashes, and leave quotes alone

# Formulas are set by a file of the site.
mathjax_path = "mathjax.js"
mathjax3_config = {
    "tex": {"macros": {}},
    "options": {"enableMenu": False, "ignoreHtmlClass": "tex2jax_ignore|mathjax_ignore|document"},
    "svg": {"fontCache": "global"},
}

# Reference pages come from docstrings.
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

html_theme = "sphinx_book_theme"
html_title = "poflow_lite"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": False,
    "navbar_persistent": [],  # one search field is enough, that of the menu
}
