"""What the site adds to Sphinx: links to the glossary, names in docstrings that lead somewhere, and the commands."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

# Where no term of the glossary is linked.
UNTOUCHED = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the hooks below."""
    app.connect("builder-inited", write_commands)
    app.connect("doctree-read", link_terms)
    app.connect("doctree-read", keep_spreads)
    app.connect("autodoc-process-docstring", as_it_reads, priority=1)
    app.connect("autodoc-process-bases", without_object)
    app.connect("missing-reference", find_name)
    return {"parallel_read_safe": True, "version": "1"}


# --- terms --------------------------------------------------------------------------------------------------------


def glossary_terms(page: str) -> list[str]:
    """The terms of the glossary's page, longest first: inside of the directive, the lines that are not indented."""
    inside = re.search(r"^```\{glossary\}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[1]
    return sorted((line for line in inside.splitlines() if line[:1].strip()), key=len, reverse=True)


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Link the first mention of each term of the glossary in the prose of a lesson."""
    if not app.env.docname.startswith("notebooks/"):
        return
    terms = {term.lower(): term for term in glossary_terms((Path(app.srcdir) / "glossary.md").read_text("utf-8"))}
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, terms))})(?=s?(?![\w-]))", re.IGNORECASE)
    for text in list(doctree.findall(nodes.Text)):
        above = parents(text)
        if any(isinstance(one, UNTOUCHED) or "cell_output" in one.get("classes", []) for one in above):
            continue
        parts, end, prose = [], 0, text.astext()
        for match in pattern.finditer(prose):
            if term := terms.pop(match[1].lower(), None):
                link = pending_xref("", reftype="term", refdomain="std", reftarget=term, refexplicit=True)
                link["refdoc"] = app.env.docname
                link += nodes.inline(match[1], match[1], classes=["glossary-term"])
                parts += [nodes.Text(prose[end : match.start()]), link]
                end = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(prose[end:])])


def keep_spreads(app: Sphinx, doctree: nodes.document) -> None:
    """A figure in a table stays on the line of its spread."""
    for entry in doctree.findall(nodes.entry):
        for text in list(entry.findall(nodes.Text)):
            if " ± " in text:
                text.parent.replace(text, nodes.Text(text.replace(" ± ", "\u00a0±\u00a0")))


def parents(node: nodes.Node) -> list[nodes.Element]:
    """The elements that a node is in, the nearest first."""
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


# --- names --------------------------------------------------------------------------------------------------------


def as_it_reads(app: Sphinx, what: str, name: str, one: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with roles and ``literals``: a bar is a bar and a star a star, except in examples."""
    example = False
    for i, line in enumerate(lines):
        line = re.sub(r"(: +)([A-Z]\.)$", r"\1\\\2", line)  # K is no letter of a list
        example = bool(line.strip()) and (example or line.strip().startswith(">>>"))
        parts = re.split(r"(``.+?``|:\w+:`[^`]+`)", line)
        if not example:
            lines[i] = "".join(
                part if j % 2 else re.sub(r"([|*])|_(?=\W|$)", r"\\\g<0>", part) for j, part in enumerate(parts)
            )


def without_object(app: Sphinx, name: str, one: Any, options: Any, bases: list[Any]) -> None:
    """What inherits from nothing says nothing of it."""
    bases[:] = [base for base in bases if base is not object]


def find_name(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.reference | None:
    """Where a name in a docstring is told: its last parts in the page of its room, or else in the only page with them.

    Docstrings name things by their files, as in ``plotting.player.player``; pages list what a room offers.
    """
    parts = node["reftarget"].removeprefix("poflow_lite.").split(".") if node["refdomain"] == "py" else [""]
    objects = env.domains["py"].objects if parts[-1] else {}
    for start in range(len(parts)):
        ends = "." + ".".join(parts[start:])
        found = [name for name in objects if name.startswith("poflow_lite.") and name.endswith(ends)]
        near = [name for name in found if name.split(".")[1] in (parts[0], node.get("py:module", "").split(".")[-1])]
        for one in (found, near):
            if len(one) == 1:
                entry = objects[one[0]]
                address = f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
                return nodes.reference("", "", content, internal=True, refuri=address)
    return None


# --- commands -----------------------------------------------------------------------------------------------------


def write_commands(app: Sphinx) -> None:
    """Write the page of the command line from the command's own help."""
    from typer.main import get_command

    from poflow_lite.cli import app as cli

    page = ["# The command line", "", "`poflow-lite COMMAND --help` says the same.", ""]
    page += described("poflow-lite", get_command(cli))
    (Path(app.srcdir) / "commands.md").write_text("\n".join(page), encoding="utf-8")


def described(name: str, command: Any) -> list[str]:
    """A command and those below it, each with its help and a table of what it takes."""
    below = getattr(command, "commands", {})
    if below:
        return [line for word, one in below.items() for line in described(f"{name} {word}", one)]
    lines = [f"## {name}", "", command.help or "", ""]
    rows = [row for one in command.params if (row := described_parameter(one))]
    return [*lines, "| takes | default | |", "| --- | --- | --- |", *rows, ""] if rows else lines


def described_parameter(parameter: Any) -> str:
    """A row of the table of a command."""
    names = "/".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
    default = "" if parameter.default in (None, False, ()) or parameter.required else f"`{parameter.default}`"
    told = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| `{names}` | {default} | {told} |"
