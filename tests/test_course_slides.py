"""Decks of the lessons: what is on them, what stays out, and that they fit a screen."""

import json
import re
from pathlib import Path

import pytest

from poflow_lite import course
from poflow_lite.course import slides

ROOT = Path(__file__).parent.parent
LESSONS = course.find_lessons(ROOT / "notebooks")
REWRITTEN = [path for path in LESSONS if "## In one minute" in path.read_text(encoding="utf-8")]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(*sources):
    return {"cells": [{"cell_type": "markdown", "metadata": {}, "source": source} for source in sources]}


def text_of(slide):
    return re.sub(r"<[^>]*>", "", "".join(slide.parts)).strip()


def test_questions_formulas_and_findings_become_slides_and_the_prose_between_becomes_notes():
    lesson = markdown(
        "# 07 · Flows\n\n## In one minute\n\n**Question.** Why?\n\n**Answer.** Because.",
        "## 1 · A step\n\n**Question.** How far?\n\nIt is this far:\n\n$$x=1$$\n\nSome prose.\n\n"
        "**Predict first.** More?\n\n<details><summary>Answer</summary>No.</details>",
        "**Figure 1.** x\n**Finding.** It is 3.\n\n## Exercises\n\n**Exercise 1.** y\n\n"
        "## Quiz\n\n**1.** z?\n\n## Summary\n\n1. a\n2. b",
    )
    found = slides.outline(lesson)
    assert [text_of(slide) for slide in found] == [
        "07 · Flows",
        "In one minuteQuestion. Why?",
        "Answer. Because.",
        "1 · A stepQuestion. How far?",
        "It is this far:\n$$x=1$$",
        "Predict first. More?\nNo.",
        "Finding. It is 3.",
        "Summary",
        "a\nb",
    ]
    assert [slide.notes for slide in found if slide.notes] == [["Some prose."], ["**Figure 1.** x"]]
    html = slides.page(lesson)
    assert html.count("<section>") == 9 + 4, "a column for each section, and its slides"
    assert "class='fragment'" in html
    assert "Exercise" not in html


@pytest.mark.parametrize("path", REWRITTEN, ids=lambda path: path.stem[:2])
def test_a_deck_has_all_figures_and_findings_and_nothing_for_teachers_or_of_the_exercises(path):
    cells = read(path)["cells"]
    html = slides.page(read(path))
    open_cells = [cell for cell in cells if cell["cell_type"] == "code" and "nbgrader" not in cell["metadata"]]
    outputs = [output for cell in open_cells for output in cell["outputs"]]
    figures = [o for o in outputs if "<img" in "".join(o.get("data", {}).get("text/html", ""))]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert len(re.findall("<img", html)) >= len(figures) > 3
    assert html.count("<strong>Finding.</strong>") == prose.count("**Finding.**") > 3
    assert not re.search("BEGIN SOLUTION|Misconceptions|Marking|<strong>Exercise|Hint 1", html)
    assert not re.search(r'(src|href)="https?:(?!//(arxiv|doi|openreview|proceedings))[^"]*\.(js|css|png)"', html)


def test_what_is_missing_is_said_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no reveal\.js or MathJax: run `npm ci` in docs/site"):
        course.write_slides(LESSONS[:1], tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.enable_socket
@pytest.mark.skipif(not (ROOT / slides.REVEAL).exists(), reason="no reveal.js: `npm ci` in docs/site")
def test_every_slide_fits_the_screen_and_nothing_is_fetched(browser, tmp_path):
    for path in course.write_slides(REWRITTEN, tmp_path, root=ROOT):
        page, wrong = browser.new_page(viewport={"width": 1280, "height": 800}), []
        page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        page.on("request", lambda request, wrong=wrong: request.url.startswith("http") and wrong.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("Reveal.isReady() && document.querySelectorAll('mjx-container').length > 3")
        for _ in range(page.evaluate("Reveal.getTotalSlides()")):
            size = page.evaluate("(s => [s.scrollWidth, s.scrollHeight, s.textContent])(Reveal.getCurrentSlide())")
            if size[0] > 1281 or size[1] > 800:
                wrong.append(f"{size[0]} x {size[1]}: {size[2].split()[:12]}")
            page.evaluate("Reveal.next()")
            while page.evaluate("Reveal.availableFragments().prev && Reveal.availableFragments().next"):
                page.evaluate("Reveal.next()")
        page.close()
        assert wrong == [], path.stem
