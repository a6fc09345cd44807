"""The documentation site: `make docs`. Its source folder is the root of the repository.

So README.md, docs/, the cards in weights/ and the figures in benchmarks/ are pages where they are: nothing is copied, and a link that works
on GitHub works here. Nothing is fetched when a page is looked at: the theme's fonts are the reader's, equations are MathML with a
font beside them.
"""

import sys
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # mathml, contents, registries, docstrings: small extensions beside this file

project = "FaceFoundry"
author = "the FaceFoundry authors"
release = installed("facefoundry")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "mathml", "contents", "registries"]
suppress_warnings = ["config.cache", "ref.python"]  # two public classes of one name (Rows) are no mistake

root_doc = "README"
include_patterns = ["README.md", "docs/**.md", "docs/site/api/*.rst", "benchmarks/RESULTS.md", "benchmarks/claims/RESULTS.md", "weights/*.md"]
exclude_patterns = ["docs/site/api"] if tags.has("pages") else []  # noqa: F821  `-t pages`: without the API, which imports everything
exclude_patterns += [".*", "build", "dist", "runs", "demo", "tests", "*.egg-info", "**/__pycache__"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 6  # the anchors GitHub gives: docs/jobs.md#filters-and-refill
myst_dmath_double_inline = True
highlight_language = "text"

default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = "FaceFoundry"
# STIX Two Math (SIL Open Font Licence), as ziamath carries it: without a font for mathematics a browser stretches no brace.
html_static_path = ["static", str(Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf")]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}

# For `make linkcheck`, on a machine with a network: pages that answer browsers only.
linkcheck_timeout = 20
linkcheck_workers = 4
linkcheck_anchors = False
