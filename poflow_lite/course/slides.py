"""A deck of slides of each lesson, made from what the lesson says: questions, formulas, figures, findings.

A lesson's form is its outline. Each section becomes a column of slides; what is not put on a slide, the prose between,
becomes the speaker's notes (press S). Exercises, quiz and notes for teachers stay out.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from poflow_lite.io import prepare_folder, write_atomically

REVEAL, MATHJAX = Path("docs/site/node_modules/reveal.js"), Path("docs/site/node_modules/mathjax/es5/tex-svg-full.js")
_FILES = ("dist/reveal.js", "dist/reveal.css", "dist/theme/white.css", "plugin/notes/notes.js", "LICENSE")
_PARAGRAPH = "\n\n"
_OMITTED = ("Exercises", "Quiz", "Further reading", "Notes for teachers")
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="reveal/white.css">
<link rel="stylesheet" href="slides.css">
<script>MathJax = {{tex: {{inlineMath: [["$", "$"]]}}, options: {{enableMenu: false}}}};</script>
<script src="mathjax.js" defer></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script>
const deck = {{width: 1280, height: 800, hash: true, slideNumber: "c/t", transition: "none", plugins: [RevealNotes]}};
Reveal.initialize(deck);
</script>
</body>
</html>
"""


@dataclass
class Slide:
    """One slide: the section it belongs to, its parts as HTML, and Markdown for the speaker."""

    section: str
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_slides(paths: Iterable[str | Path], out: str | Path, root: str | Path = ".") -> list[Path]:
    """Write a deck for each lesson, with its figures as they were executed; return the pages written.

    Args:
        paths: of lessons.
        out: folder; the pages share what they need there, and open without a server or a network.
        root: the repository, in which `npm ci` was run in docs/site.

    Raises:
        FileNotFoundError: where it was not.
        OSError: if the folder cannot be written to.
    """
    root = Path(root)
    if not (root / REVEAL).exists() or not (root / MATHJAX).exists():
        raise FileNotFoundError("no reveal.js or MathJax: run `npm ci` in docs/site, the one step that needs a network")
    out = prepare_folder(out)
    shared = prepare_folder(out / "reveal")
    for name in _FILES:
        shutil.copy(root / REVEAL / name, shared)
    shutil.copy(root / MATHJAX, out / "mathjax.js")
    shutil.copy(root / "docs/site/_static/slides.css", out)
    written = []
    for path in map(Path, paths):
        text = page(json.loads(path.read_text(encoding="utf-8")))
        written.append(out / f"{path.stem}.html")
        write_atomically(written[-1], lambda file, text=text: file.write_text(text, encoding="utf-8"))
    return written


def page(notebook: dict[str, Any]) -> str:
    """The deck of a lesson as HTML."""
    columns: dict[str, list[str]] = {}
    for slide in outline(notebook):
        columns.setdefault(slide.section, []).append(_html(slide))
    slides = "\n".join(f"<section>\n{''.join(column)}</section>" for column in columns.values())
    return _PAGE.format(title=escape(next(iter(columns))), slides=slides)


def outline(notebook: dict[str, Any]) -> list[Slide]:
    """The slides of a lesson in order; those without a part, whose prose is omitted, are none."""
    slides = [Slide("")]
    for kind, content in _pieces(notebook):
        if kind == "heading":
            level = "h1" if len(slides) == 1 else "h2"
            slides.append(Slide(content, [f"<{level}>{_inline(content)}</{level}>"]))
        elif kind == "prose":
            _add_prose(slides, content)
        else:
            slides.append(Slide(slides[-1].section, [content]))
    return [slide for slide in slides if slide.parts and not slide.section.endswith(_OMITTED)]


def _pieces(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Headings, blocks of Markdown, figures and short code of a lesson, as they follow each other."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for block in _blocks(source):
                heading = re.match(r"##? (.*)", block)
                yield ("heading", heading[1]) if heading else ("prose", block)
            continue
        if "nbgrader" in cell["metadata"] or "find_spec" in source:
            continue
        drawing = "hide-input" in cell["metadata"].get("tags", [])
        texts = ["".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout"]
        lines = source.count("\n") + sum(text.count("\n") for text in texts)
        if texts and not drawing and source.count("\n") < 20 and lines <= 36:  # more do not fit on a screen
            yield "code", f"<pre><code>{escape(source)}</code></pre><pre class='output'>{escape(''.join(texts))}</pre>"
        elif texts:
            yield "code", f"<pre class='output'>{escape(''.join(texts))}</pre>"
        for output in cell["outputs"]:
            if html := "".join(output.get("data", {}).get("text/html", "")):
                yield "figure", html


def _blocks(text: str) -> Iterator[str]:
    """Markdown in paragraphs; a folded answer and a formula stay whole, and a finding begins a new one."""
    block = ""
    spaced = re.sub(r"(?m)^(#+ .*)$|^(?=\*\*Finding\.)", r"\n\n\1\n\n", text)
    for paragraph in re.split(r"\n\s*\n", spaced):
        block = f"{block}\n\n{paragraph}".strip()
        if block and block.count("<details>") == block.count("</details>") and block.count("$$") % 2 == 0:
            yield block
            block = ""


def _add_prose(slides: list[Slide], block: str) -> None:
    """Put a block on a slide of its own, or on the last one, or into its notes, by what it is."""
    last = slides[-1]
    if block.startswith(("**Question.**", "**Answer.**")) and last.parts and len(last.parts) == 1:
        last.parts.append(_markdown(block))
    elif block.startswith("$$"):
        lead_in = last.notes.pop() if last.notes and len(last.notes[-1].split()) <= 60 else ""
        slides.append(Slide(last.section, [_markdown(f"{lead_in}\n\n{block}")]))
    elif block.startswith(("**Answer.**", "**Finding.**", "**Predict first.**", "**Claim", "|")) or "$$" in block:
        slides.append(Slide(last.section, [_markdown(block)]))
    elif block.startswith("**Figure") and "<img" in "".join(last.parts):
        last.parts.append(f"<div class='caption'>{_markdown(block)}</div>")
    elif block.startswith("<details>") and last.parts and "Predict first" in last.parts[-1]:
        answer = re.sub(r"</?details>|<summary>.*?</summary>", "", block)
        last.parts.append(f"<div class='fragment'>{_markdown(answer)}</div>")
    elif re.match(r"([-*]|\d\.) ", block) and not last.section.startswith("In one minute"):
        slides.append(Slide(last.section, [_markdown(block)]))
    elif not block.startswith("<details>"):
        last.notes.append(block)


def _inline(text: str) -> str:
    return re.sub(r"^<p>|</p>\s*$", "", _markdown(text))


def _markdown(text: str) -> str:
    from nbconvert.filters.markdown import markdown2html

    return re.sub(r'<a [^>]*href="(?!https?:)[^"]*"[^>]*>(.*?)</a>', r"\1", markdown2html(text))


def _html(slide: Slide) -> str:
    notes = f"<aside class='notes'>{_markdown(_PARAGRAPH.join(slide.notes))}</aside>" if slide.notes else ""
    head = "" if slide.parts[0].startswith("<h") else f"<div class='section'>{_inline(slide.section)}</div>\n"
    parts = "\n".join(slide.parts)
    return f"<section>\n{head}{parts}\n{notes}</section>\n"
