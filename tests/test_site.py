"""The site: what it shows and hides, and how it behaves in a real browser; built once, of all lessons and one more."""

import importlib
import importlib.util
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from poflow_lite import course
from poflow_lite.course import site

ROOT = Path(__file__).parent.parent
LESSONS = course.find_lessons(ROOT / "notebooks")
NODE = ROOT / "docs/site/node_modules"
MISSING = [name for name in site._PACKAGES if importlib.util.find_spec(name) is None]
PLAYERS = "13-players"
pytestmark = pytest.mark.enable_socket  # to servers on this machine

DRAWING = """\
from poflow_lite import plotting


def dots(t, k):
    figure, axis = plotting.figure(4, 2)
    axis.plot([t], [k], "o", markersize=20)
    axis.set(xlim=(-1, 4), ylim=(-1, 2))
    return figure"""
SLIDERS = """\
labels = {"t": "time", "k": "height"}
plotting.explore(dots, "A dot in the plane", {"t": 1, "k": 0}, labels, "t", t=[0, 1, 2, 3], k=[0, 1])"""
ANIMATION = """\
import torch
dot = torch.eye(4).reshape(1, 1, 4, 1, 1, 4).expand(-1, -1, -1, 3, 4, -1)
plotting.show_gif(plotting.gif(dot, scale=20), "A dot that moves to the right")"""


# --- without a browser --------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "find_spec", lambda name: None if name == "myst_nb" else True)
    with pytest.raises(ValueError, match=r'^the site needs myst_nb: pip install -e "\.\[site\]"$'):
        course.build_site(tmp_path / "out", ROOT)
    monkeypatch.setattr(site, "find_spec", lambda name: True)
    with pytest.raises(FileNotFoundError, match=r"^no docs/site in .*: run this in the repository's root$"):
        course.build_site(tmp_path / "out", tmp_path)
    monkeypatch.setattr(site, "MATHJAX", Path("docs/site/nowhere.js"))
    with pytest.raises(FileNotFoundError, match=r"^no MathJax: run `npm ci` in docs/site"):
        course.build_site(tmp_path / "out", ROOT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_pages_hold_outputs_but_no_solution_answer_or_note(path, tmp_path):
    (built,) = course.build([path], tmp_path, "pages")
    before, after = (nbformat.read(one, as_version=4).cells for one in (path, built))
    outputs = {
        cell.id: len(cell.outputs) for cell in before if cell.cell_type == "code" and "nbgrader" not in cell.metadata
    }
    assert outputs == {cell.id: len(cell.outputs) for cell in after if cell.id in outputs}
    graded = [cell for cell in after if cell.cell_type == "code" and "nbgrader" in cell.metadata]
    assert graded
    assert not any(cell.outputs for cell in graded)
    prose = "\n\n".join(cell.source for cell in after if cell.cell_type == "markdown")
    assert "BEGIN SOLUTION" not in built.read_text()
    assert not re.search("Notes for teachers|Marking", prose)
    assert "<details>" not in re.search(r"^## Quiz(.*?)^## ", prose, re.DOTALL | re.MULTILINE)[1]


def test_the_teachers_page_collects_notes_without_marks(tmp_path):
    notes = "<details><summary><b>Notes for teachers</b></summary>\n\n**Timing**, 60.\n\n**Marking.** 7.\n\n"
    cells = [new_markdown_cell("# 00 · X"), new_markdown_cell(f"{notes}*Misconceptions.* none\n</details>")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "00-x.ipynb")
    page = site.lesson_notes([tmp_path / "00-x.ipynb"])
    assert page.endswith(
        "## 00 · X\n\n[The lesson](/notebooks/00-x.ipynb)\n\n**Timing**, 60.\n\n*Misconceptions.* none\n"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site, with a lesson whose sliders and animation were executed now."""
    if MISSING or not (ROOT / site.MATHJAX).exists():
        pytest.skip(f"no {', '.join(MISSING) or 'MathJax'}: pip install '.[site]', and npm ci in docs/site")
    folder = tmp_path_factory.mktemp("site")
    lessons = shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    cells = [new_markdown_cell("# 13 · Players"), *map(new_code_cell, (DRAWING, SLIDERS, ANIMATION))]
    cells.append(new_markdown_cell("The ridge map and $$E=\\int_0^1\\lVert v\\rVert^2\\,dt.$$"))
    nbformat.write(new_notebook(cells=cells), lessons / f"{PLAYERS}.ipynb")
    course.execute(lessons / f"{PLAYERS}.ipynb")
    told = course.build_site(folder / "out", ROOT, lessons)  # raises for a single warning
    assert told[-1].endswith("pages")
    return folder / "out"


def pages_of(built):
    return sorted(path for path in built.rglob("*.html") if "_static" not in path.parts and "play" not in path.parts)


class Links(HTMLParser):
    """Identities of a page, and what it links and loads."""

    def __init__(self, page):
        super().__init__()
        self.identities, self.links, self.loaded = set(), [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.identities.update(filter(None, (named.get("id"), named.get("name"))))
        self.links += [named["href"]] if tag == "a" and named.get("href") else []
        self.loaded += [named[key] for key in ("src", "href") if tag not in ("a", "use") and named.get(key)]


def test_every_link_inside_resolves_and_nothing_is_loaded_from_outside(built):
    found = {page: Links(page) for page in pages_of(built)}
    assert len(found) > len(LESSONS) + len(site.rooms()) + 20
    broken = []
    for page, links in found.items():
        assert not [address for address in links.loaded if re.match(r"(https?:)?//", address)], page
        for address in {*links.links, *links.loaded}:
            if re.match(r"(https?|mailto|data):", address):
                continue
            path, anchor = urldefrag(unquote(address.partition("?")[0] if "#" not in address else address))
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (anchor and target in found and anchor not in found[target].identities):
                broken.append(f"{page.relative_to(built)}: {address}")
    assert not broken, "\n".join(broken)


def test_terms_lead_to_the_glossary_and_docstrings_to_each_other(built):
    page = (built / f"notebooks/{PLAYERS}.html").read_text(encoding="utf-8")
    assert 'href="../glossary.html#term-ridge-map"' in page
    offered = {name for room in site.rooms() for name in importlib.import_module(f"poflow_lite.{room}").__all__}
    for page in built.glob("api/*.html"):
        names = re.findall(r'(<a [^>]*>)?<code class="xref py[^>]*>(.*?)</code>', page.read_text(encoding="utf-8"))
        plain = {re.sub("<.*?>|\\(\\)", "", name).split(".")[-1] for link, name in names if not link}
        assert not plain & offered, page.name


def test_no_page_tells_a_solution_an_answer_or_what_marks_are_given_for(built):
    for page in [*built.glob("notebooks/*.html"), *built.glob("teaching/*.html"), *built.glob("_downloads/*/*.ipynb")]:
        assert not re.search(
            "(BEGIN|END) SOLUTION|<b>Notes for teachers|Marking[.,]", page.read_text(encoding="utf-8")
        ), page


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(built, serve):
    return serve(built)


@pytest.fixture
def tab(browser, address):
    """A page of the browser; what goes wrong on it, and what it asks of others, is in its ``wrong``."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(60_000)
    tab.wrong = []
    tab.on("console", lambda message: message.type in ("error", "warning") and tab.wrong.append(message.text))
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("response", lambda response: response.status >= 400 and tab.wrong.append(response.url))
    tab.on("request", lambda asked: asked.url.startswith((address, "data:")) or tab.wrong.append(asked.url))
    yield tab
    tab.close()


def settled(tab, address):
    """Go to a page and wait until its formulas are set and its colours have changed to those of the scheme."""
    tab.goto(address)
    tab.evaluate("window.MathJax?.startup?.promise")
    tab.evaluate(
        "Promise.allSettled(document.getAnimations().filter(one => one.effect.getComputedTiming().endTime < Infinity)"
        ".map(one => one.finished)).then(() => true)"
    )
    return tab


def test_every_page_loads_without_error_or_outside_request_and_fits_a_narrow_screen(built, address, tab):
    wide = []
    for page in pages_of(built):
        settled(tab, f"{address}/{page.relative_to(built)}")
        assert tab.locator("main h1:visible").count() == 1, page
        assert not tab.evaluate("document.querySelectorAll('mjx-merror').length"), page
        tab.set_viewport_size({"width": 400, "height": 800})
        tab.wait_for_timeout(100)  # until boxes that scroll have been found
        if (width := tab.evaluate("document.documentElement.scrollWidth")) > 400:
            wide.append(f"{page.relative_to(built)}: {width} pixels")
        tab.set_viewport_size({"width": 1280, "height": 900})
        assert not tab.wrong, f"{page}: {tab.wrong}"
    assert not wide, "\n".join(wide)


def test_sliders_move_and_play(address, tab):
    settled(tab, f"{address}/notebooks/{PLAYERS}.html")
    player = tab.locator(".poflow-player")
    picture, slider, said = player.locator("img"), player.locator("input").first, player.locator("output").first
    assert player.locator("input").count() == 2
    assert (tab.get_by_label("time").count(), picture.get_attribute("alt")) == (1, "A dot in the plane")
    assert said.text_content() == "1"
    seen = [picture.get_attribute("src")]
    slider.press("ArrowRight")
    assert (said.text_content(), slider.get_attribute("aria-valuetext")) == ("2", "2")
    seen.append(picture.get_attribute("src"))
    player.locator("input").nth(1).press("ArrowRight")
    seen.append(picture.get_attribute("src"))
    assert len(set(seen)) == 3
    button = player.get_by_role("button")
    button.click()
    tab.wait_for_function("document.querySelector('.poflow-player output').textContent === '0'")
    assert button.text_content() == "stop"
    button.click()
    stopped = said.text_content()
    tab.wait_for_timeout(900)
    assert said.text_content() == stopped


def test_animations_play_until_they_are_stopped(address, browser, tab):
    settled(tab, f"{address}/notebooks/{PLAYERS}.html")
    button = tab.get_by_role("button", name="stop the animation: A dot that moves to the right")
    shown = lambda name: tab.locator(name).screenshot()  # noqa: E731
    frames = set()
    for _ in range(12):
        frames.add(shown('img[src^="data:image/gif"]'))
        tab.wait_for_timeout(70)
    assert len(frames) > 1
    button.click()
    still = {shown("canvas") for _ in range(4) if tab.wait_for_timeout(150) is None}
    assert len(still) == 1
    calm = browser.new_page(reduced_motion="reduce")
    settled(calm, f"{address}/notebooks/{PLAYERS}.html")
    assert calm.get_by_role("button", name="play the animation").count() == 1
    calm.close()


@pytest.mark.parametrize(
    ("word", "page"), [("Sinkhorn", "05-"), ("log_det_identity_plus", "flows"), ("syllabi", "teach")]
)
def test_search_finds(word, page, address, tab):
    tab.goto(f"{address}/search.html?q={word}")
    tab.wait_for_selector("#search-results li a")
    tab.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('Searching')")
    found = tab.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert any(page in link for link in found), found
    assert not tab.wrong


VIOLATIONS = """async (rules) => (await axe.run({exclude: ["mjx-container"]}, {runOnly: rules})).violations
  .filter(one => ["serious", "critical"].includes(one.impact))
  .map(one => `${one.id} (${one.nodes.length}): ${one.nodes[0].html.slice(0, 200)} ${one.nodes[0].failureSummary}`)"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, built, address, tab):
    axe = NODE / "axe-core/axe.min.js"
    if not axe.exists():
        pytest.skip("no axe-core: npm ci in docs/site")
    tab.emulate_media(color_scheme=scheme)
    long = [path for path in built.glob("notebooks/*.html") if path.name[:2] not in ("00", "07", "13")]
    pages = [page for page in pages_of(built) if page not in long]  # a lesson takes it ten seconds
    if scheme == "dark":  # one of each kind
        pages = [
            built / name for name in ("index.html", f"notebooks/{PLAYERS}.html", "api/flows.html", "notation.html")
        ]
    found = []
    for page in pages:
        settled(tab, f"{address}/{page.relative_to(built)}")
        tab.add_script_tag(content=axe.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(built)}: {violation}" for violation in tab.evaluate(VIOLATIONS, RULES)]
    assert not found, "\n".join(found)


REACHABLE = """() => {
  const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']");
  window.left = new Set([...all].filter(one => one.checkVisibility({visibilityProperty: true}) && one.tabIndex >= 0
    && !one.disabled && !(one.type === "radio")));
  window.left.forEach(one => one.addEventListener("focus", () => window.left.delete(one)));
  return window.left.size;
}"""


@pytest.mark.parametrize(
    "page", [f"notebooks/{PLAYERS}.html", "notebooks/00-start-here.html", "index.html", "teaching/index.html"]
)
def test_the_keyboard_reaches_every_control(page, address, tab):
    settled(tab, f"{address}/{page}")
    count = tab.evaluate(REACHABLE)
    assert count > 20
    for _ in range(count + 10):
        tab.keyboard.press("Tab")
    left = tab.evaluate("[...window.left].map(one => one.outerHTML.slice(0, 120))")
    assert not left, f"{len(left)} of {count}: {left[:5]}"


def test_a_page_works_from_a_folder_without_a_server(built, tab):
    settled(tab, (built / f"notebooks/{PLAYERS}.html").as_uri())
    assert tab.locator("mjx-container svg").count() == 1
    before = tab.locator(".poflow-player img").get_attribute("src")
    tab.locator(".poflow-player input").first.press("ArrowRight")
    assert tab.locator(".poflow-player img").get_attribute("src") != before
