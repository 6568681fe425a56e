"""The page that runs a model in the browser: what is written for it, and how it behaves in a real browser."""

import base64
import functools
from pathlib import Path

import pytest
import torch

from poflow_lite import experiments
from poflow_lite.course import play
from poflow_lite.datasets import AllAtOnce, load_images, load_sequences

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / play.PAGE / "node_modules/onnxruntime-web/dist"
LIMIT = 15_000_000
"""Bytes of the whole page."""
MISSING = [name for name in play._PACKAGES if play.find_spec(name) is None]


@pytest.fixture(scope="module")
def model():
    return experiments.load_pretrained(play.MODEL, "cpu").model


# --- without a browser --------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(play, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(ValueError, match=r'^the page needs onnx: pip install -e "\.\[site\]" in the repository$'):
        play.write(tmp_path / "out")
    monkeypatch.setattr(play, "find_spec", lambda name: True)
    with pytest.raises(
        FileNotFoundError, match=r"^no ort\.wasm.* in .*: run `npm ci` in .*play, which needs a network"
    ):
        play.write(tmp_path / "out", runtime=tmp_path)
    monkeypatch.setattr(play, "PAGE", Path("docs/nowhere"))
    with pytest.raises(FileNotFoundError, match=r"^there is no docs/nowhere in .*: run this in the repository's root"):
        play.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install '.[site]'")
def test_exported_graphs_find_what_pytorch_finds_on_other_inputs(model, tmp_path):
    encoder, step, decoder = play.export_model(model, tmp_path)
    x = load_sequences(play.DATA, "test", start="random").sample(7).frames[:, 0]
    z = model.encode(x).mean
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=play.TOLERANCE)
    close(play.run_graph(encoder, {"x": x}), z)
    y = torch.tensor([[0.3, -1.0, 0.7]])
    trajectory, code = model.rollout(z[:1], y, range(9)).z[0], z[:1]
    for t in range(8):
        code = play.run_graph(step, {"z": code, "y": y, "t": torch.tensor([float(t)])})
        close(code, trajectory[[t + 1]])
    close(play.run_graph(decoder, {"z": trajectory}), model.decode(trajectory).mean)
    for path in (encoder, step, decoder):
        assert str(ROOT).encode() not in path.read_bytes(), "the exporter notes the paths of this machine"


@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install '.[site]'")
def test_a_graph_that_differs_is_not_kept_quiet(model, tmp_path, monkeypatch):
    monkeypatch.setattr(play._Step, "forward", lambda self, z, y, t: z + 1.01 * self.model.flow.field.velocity(z, t, y))
    with pytest.raises(ValueError, match=r"step\.onnx differs from PyTorch by .*, at most 1e-04 is expected"):
        play.export_model(model, tmp_path)


def test_examples_are_held_out_and_planes_hold_paths(model):
    data = play.describe(model, each=2, dots=50)
    test = load_images(play.DATA, "test")
    held_out = {base64.b64encode(x.numpy().tobytes()).decode() for x in (255 * test.images[:, 0]).round().byte()}
    assert [example["label"] for example in data["examples"]] == [*range(10)] * 2
    assert {example["pixels"] for example in data["examples"]} <= held_out
    sequences = AllAtOnce(load_sequences(play.DATA, "test"))
    torch.testing.assert_close(
        torch.tensor(data["amounts"]), sequences.progress(torch.ones(1, 3), torch.arange(9)[None])[0]
    )
    batch = sequences.sample(100, generator=torch.Generator().manual_seed(3))
    paths = model.rollout(model.encode(batch.frames[:, 0]).mean, batch.k, range(9)).z
    for plane in data["planes"]:
        seen = paths @ torch.tensor(plane["directions"]).T + torch.tensor(plane["offset"])
        assert ((seen > 0) & (seen < 1)).float().mean() > 0.98
        assert len(plane["dots"]) == 50
    assert len(data["hues"]) == 50
    assert min(data["hues"]) >= 0


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if MISSING or not RUNTIME.is_dir():
        pytest.skip(f"no {', '.join(MISSING) or 'onnxruntime-web'}: pip install '.[site]', and npm ci in {play.PAGE}")
    out = tmp_path_factory.mktemp("play") / "out"
    files = play.write(out, home="../index.html")
    assert sorted(files) == sorted(path for path in out.rglob("*") if path.is_file())
    return out


def test_everything_is_there_and_small(written):
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB")
    assert size <= LIMIT
    html = (written / "index.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in html
    assert "http" not in html
    licence = (written / "runtime/LICENCE.txt").read_text(encoding="utf-8")
    assert licence.startswith("onnxruntime-web 1.")
    assert "Microsoft" in licence
    assert "Permission is hereby granted" in licence


@pytest.fixture(scope="module")
def address(written, serve):
    return f"{serve(written)}/index.html"


@pytest.fixture
def page(browser, address):
    """The page, ready and at rest, on which no script failed and which asked nobody else for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(here) else None)
    here = (address.rpartition("/")[0], "data:", "blob:")
    page.goto(address)
    page.wait_for_selector("#app:not([hidden])", timeout=60_000)
    page.wait_for_function("document.getElementById('cost').textContent")
    yield page
    context.close()
    assert not wrong


SET = """([id, value]) => {
  const input = document.getElementById(id);
  input.value = value;
  input.dispatchEvent(new Event("input"));
}"""
SHOWN = """async () => {
  for (const _ of [1, 2]) await new Promise(done => { // the first may have been under way
    document.addEventListener("drawn", done, { once: true });
    dispatchEvent(new Event("resize")); // asks for a picture of what is there
  });
}"""
PIXELS = "id => Array.from(document.getElementById(id).getContext('2d').getImageData(0, 0, 28, 28).data)"


def slide(page, name, value):
    """Move a slider, and wait for its picture."""
    page.evaluate(SET, [name, str(value)])
    page.evaluate(SHOWN)


def pixels(page, name):
    """What a canvas shows: (3, 28, 28), in steps of 1/255."""
    return torch.tensor(page.evaluate(PIXELS, name)).view(28, 28, 4)[..., :3].permute(2, 0, 1) / 255


def draw(page, strokes):
    """Draw lines with the mouse, in units of the pad."""
    box = page.locator("#pad").bounding_box()
    for first, *others in strokes:
        for i, (x, y) in enumerate([first, *others]):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 if i == 0 else 8)
            if i == 0:
                page.mouse.down()
        page.mouse.up()
    page.evaluate(SHOWN)


def agrees(page, model, speeds, time):
    """Both pictures are PyTorch's at a whole time, to half a step of 1/255 and what rounding and float32 add."""
    slide(page, "time", 0)
    start = pixels(page, "truth")
    assert start[1:].count_nonzero() == 0, "the digit is in the red channel"
    for name, speed in zip(("scale", "rotate", "hue"), speeds, strict=True):
        slide(page, f"speed-{name}", speed)
    slide(page, "time", time)
    y = torch.tensor([speeds])
    drawn = model.decode(model.rollout(model.encode(start[None]).mean, y, range(9)).z[:, time]).mean[0]
    assert (pixels(page, "model") - drawn).abs().max() <= 0.5 / 255 + 2e-4
    sequences = AllAtOnce(load_sequences(play.DATA, "test"))
    true = sequences.render(start[None], sequences.progress(y, torch.tensor([[time]])))[0, 0]
    assert (pixels(page, "truth") - true).abs().max() <= 0.5 / 255 + 2e-4
    return start, drawn, true


@pytest.mark.enable_socket  # to a server on this machine
def test_an_example_moves_as_in_pytorch(page, model):
    page.get_by_role("button", name="Take this 4").click()
    page.evaluate(SHOWN)
    for speeds, time in (([0.0, 1.0, 0.0], 8), ([-0.5, -0.6, 0.85], 5), ([1.0, 0.0, -1.0], 1)):
        start, drawn, true = agrees(page, model, speeds, time)
        assert (drawn - true).abs().sum() < 0.8 * (drawn - start).abs().sum()
    test = load_images(play.DATA, "test")
    four = test.images[(test.labels == 4).nonzero()[0, 0]]
    torch.testing.assert_close(start, four, rtol=0, atol=1e-6)


@pytest.mark.enable_socket
def test_a_drawn_digit_is_framed_as_mnist_is_and_moves_as_in_pytorch(page, model):
    page.click("#clear")
    draw(page, [[(0.1, 0.15), (0.45, 0.1), (0.15, 0.6)]])  # a 7, small and in a corner
    start, drawn, true = agrees(page, model, [0.0, 0.8, 0.0], 6)
    ink = start[0]
    rows, columns = ink.sum(1), ink.sum(0)
    places = torch.arange(28) + 0.5
    assert abs((rows @ places / ink.sum()).item() - 14) < 0.3
    assert abs((columns @ places / ink.sum()).item() - 14) < 0.3
    extent = [int((line > 0.3).nonzero().max() - (line > 0.3).nonzero().min()) + 1 for line in (rows, columns)]
    assert 18 <= max(extent) <= 21
    mnist = load_images(play.DATA, "test").images[:, 0].flatten(1).sum(1)
    assert mnist.quantile(0.02) < ink.sum() < mnist.quantile(0.98)
    assert (drawn - true).abs().sum() < 0.8 * (start - true).abs().sum()


@pytest.mark.enable_socket
def test_buttons_and_keys(page):
    def speeds():
        return [float(page.input_value(f"#speed-{name}")) for name in ("scale", "rotate", "hue")]

    page.get_by_role("button", name="Rotate", exact=True).click()
    assert speeds() == [0, 1, 0]
    page.click("#reverse")
    assert speeds() == [0, -1, 0]
    assert page.inner_text("#speed-rotate + output") == "turns right, 1.00"
    page.focus("#speed-hue")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert speeds() == [0, -1, 0.95]
    slide(page, "time", 4)
    reached = pixels(page, "model")
    page.click("#onward")  # the clock begins again, where the code is
    page.evaluate(SHOWN)
    assert page.input_value("#time") == "0"
    torch.testing.assert_close(pixels(page, "model"), reached, rtol=0, atol=1.01 / 255)
    page.focus("#play")
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.wait_for_function("Number(document.getElementById('time').value) > 1")
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Play"
    before = [page.get_attribute(f"#examples button:nth-child({i})", "aria-label") for i in (1, 10)]
    assert before == ["Take this 0", "Take this 9"]
    page.click("#others")
    page.focus("#examples button:nth-child(6)")
    page.keyboard.press("Enter")
    assert page.get_attribute("#examples button:nth-child(6)", "aria-pressed") == "true"


@pytest.mark.enable_socket
def test_it_plays_at_once_unless_less_motion_is_asked_for(page, browser, address):
    assert page.get_attribute("#play", "aria-label") == "Play"
    moving = browser.new_page()
    moving.goto(address)
    moving.wait_for_selector("#play[aria-label=Pause]", timeout=60_000)
    moving.close()


@pytest.mark.enable_socket
@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_no_width_needs_scrolling_to_the_side(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.enable_socket
def test_what_a_browser_lacks_is_said_in_plain_words(browser, address, written):
    def told(where, script=None, missing=None):
        page = browser.new_page()
        if script:
            page.add_init_script(script)
        if missing:
            page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
        page.goto(where)
        page.wait_for_selector("#message.trouble")
        said, shown = page.inner_text("#message"), page.is_visible("#app")
        page.close()
        assert not shown
        return said

    assert "python -m http.server" in told((written / "index.html").as_uri())
    assert "WebAssembly" in told(address, script="delete window.WebAssembly")
    for name in ("model/step.onnx", "play.json", "runtime/ort.mjs", "runtime/ort.wasm.gz"):
        said = told(address, missing=name)
        assert f"{name} is missing" in said
        assert "poflow-lite course play" in said
