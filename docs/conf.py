"""How Sphinx makes the site of these pages: `python -m sphinx -W docs docs/_build`, then open docs/_build/index.html.

The pages are Markdown as it reads on a code host too; what only the site needs is made here: the commands' help, the
public names with their docstrings, notebooks without output, and colours for indented blocks.
"""

import os
import re
from pathlib import Path

import click
import nbformat
from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

# Docstrings need no computing, and this backend is imported without TensorFlow or JAX.
os.environ["KERAS_BACKEND"] = "numpy"

project = "The bottleneck zoo"
html_title = project
author = "the authors of the bottleneck zoo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures are shown, and are no links
default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
napoleon_use_rtype = False

myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

# What the functions give, and is no public name: nobody makes one.
RESULTS = (
    "zoo.config.Config",
    "zoo.layer_table.Description",
    "zoo.convert.verification.Verification",
    "zoo.network.geometry.Geometry",
    "zoo.scanning.score_map.ScoreMap",
)

# What indented blocks are of, by how they begin.
LANGUAGES = {
    "pycon": r">>> ",
    "console": r"\$ ",
    "bash": r"(export |[A-Z_]+=\S+ )*(zoo|python|pip|pytest|git|\.ci/run|ray|docker|saved_model_cli|curl)\b",
    "yaml": r"\w+:( |\n)",
}


def command_line() -> str:
    """The help of `zoo` and of each of its commands, as Markdown."""
    from zoo.cli import zoo as group

    context = click.Context(group, info_name="zoo", terminal_width=92)
    texts = [("zoo", context.get_help())]
    for name in group.list_commands(context):
        inner = click.Context(group.commands[name], info_name=name, parent=context, terminal_width=92)
        texts.append((f"zoo {name}", inner.get_help()))
    return "".join(f"\n## {title}\n\n```text\n{text}\n```\n" for title, text in texts)


def public_names() -> str:
    """Directives for the public names and for what they give, whose docstrings Sphinx reads."""
    import zoo

    names = sorted((f"zoo.{name}" for name in zoo.__all__), key=str.lower)
    classes = [name for name in names if isinstance(getattr(zoo, name.removeprefix("zoo.")), type)]
    functions = [f".. autofunction:: {name}\n" for name in names if name not in classes]
    parts = {
        "Functions": functions,
        "Classes": map(class_directive, classes),
        "Results": map(class_directive, (f"{name}()" for name in RESULTS)),
    }
    return "".join(f"\n## {title}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "```\n" for title, lines in parts.items())


def class_directive(name: str) -> str:
    """The directive of a class with its methods and properties."""
    return f".. autoclass:: {name}\n   :members:\n   :exclude-members: model_config\n"


MADE = {"command_line": command_line, "python_api": public_names}
# Files beside README.md; of each there is a page that leads to it, in whose place the site shows the file itself.
BESIDE = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Give a page what is made for it, and links between the pages and the files beside README.md their places here."""
    if page in BESIDE:
        file = Path(app.srcdir).parent / BESIDE[page]
        app.env.note_dependency(file)
        source[0] = file.read_text(encoding="utf-8").replace("](docs/", "](")
    elif page in MADE:
        source[0] += MADE[page]()
    for other, file_name in BESIDE.items():
        source[0] = re.sub(rf"\]\((\.\./)?{file_name}", f"]({other}.md", source[0])


def colour(app: Sphinx, page: nodes.document) -> None:
    """Name the language of indented blocks."""
    for block in page.findall(nodes.literal_block):
        if block.get("language", "none") == "none":
            found = (name for name, start in LANGUAGES.items() if re.match(start, block.astext()))
            block["language"] = next(found, "text")


def plain(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep a property's first sentence whole, of which Napoleon takes what is before a colon for a type."""
    if what == "property":
        lines[:0] = ["..", ""]


class NotebookParser(MystParser):
    """A notebook as the Markdown of its cells, the code in fences."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Read the JSON and parse its cells."""
        cells = nbformat.reads(inputstring, as_version=4).cells
        texts = [f"```python\n{each.source}\n```" if each.cell_type == "code" else each.source for each in cells]
        file = Path(document["source"]).name
        texts.insert(1, f"*The notebook itself, to run: {{download}}`{file}`.*")
        super().parse("\n\n".join(texts), document)


def setup(app: Sphinx) -> None:
    """Connect the above to Sphinx."""
    app.connect("source-read", complete)
    app.connect("doctree-read", colour)
    app.connect("autodoc-process-docstring", plain, priority=400)
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
