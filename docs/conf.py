"""Settings of the documentation site: `python -m sphinx -W docs docs/_build/html`."""

import os
import sys
from pathlib import Path

import matplotlib

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "ext"), str(HERE.parent)]
os.environ["JUPYTER_PATH"] = str(HERE / "ext")  # a kernel that logs errors only

MATH_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"

WIDE = [f"results/{page.stem}" for page in (HERE / "results").glob("*.md")]  # have wide tables

project = "jaxrnn"
author = "the authors of jaxrnn"
copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_togglebutton",
    "guides",
    "mathml",
    "public_names",
    "two_languages",
]
exclude_patterns = ["_build"]

# Pages are read on GitHub, too: links to headings work there and here.
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4

# The tutorial's cells run when a page has changed, and only then.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
default_role = "py:obj"
napoleon_attr_annotations = False  # the signature has the types
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
smartquotes_action = "D"  # dashes only
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "jaxrnn"
html_logo = html_favicon = "images/logo.svg"
html_static_path = ["_static", str(MATH_FONT)]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "article_header_end": ["translation.html", "article-header-buttons.html"],
    "footer_content_items": ["copyright.html"],
    "logo": {"text": "jaxrnn"},
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc.html"]} | {page: [] for page in WIDE},
    "show_toc_level": 2,
    "use_download_button": False,
}
templates_path = ["_templates"]
togglebutton_hint = togglebutton_hint_hide = ""
copybutton_exclude = ".linenos, .gp, .go"  # prompts and outputs are not copied
