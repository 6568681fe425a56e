// What a page needs beside its theme: animations that stop, and wide formulas that the keyboard can scroll.

// An animation starts by itself unless the reader's system asks for less motion, and a button stops it at its first frame.
function stoppable(image) {
  const button = document.createElement("button");
  const canvas = document.createElement("canvas");
  button.type = "button";
  button.className = "animation";
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", image.alt);
  canvas.style.maxWidth = "100%";
  const show = (playing) => {
    image.hidden = !playing;
    canvas.hidden = playing;
    button.textContent = playing ? "stop" : "play";
    button.setAttribute("aria-label", `${button.textContent} the animation: ${image.alt}`);
  };
  image.after(canvas, button);
  button.addEventListener("click", () => show(image.hidden));
  show(!window.matchMedia("(prefers-reduced-motion: reduce)").matches);
}

// Boxes that scroll sideways take the focus, so that arrow keys reach what is out of sight.
function scrollable() {
  const boxes = document.querySelectorAll(
    ".bd-article :is(div.math, pre, .pst-scrollable-table-container, .output.text_html)",
  );
  for (const box of boxes) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  for (const box of document.querySelectorAll(".bd-article span.math:has(svg)")) {
    const width = box.querySelector("svg").getBoundingClientRect().width; // letters lean out of their box a little
    if (width > box.clientWidth + 8) box.tabIndex = 0;
  }
}

// What the theme leaves without a name, or with one that says something else than is seen.
for (const summary of document.querySelectorAll("summary:has(.toctree-toggle)")) {
  summary.setAttribute("aria-label", `Pages below ${summary.closest("li").querySelector("a").textContent.trim()}`);
}
for (const summary of document.querySelectorAll("details.hide > summary[aria-label]")) summary.removeAttribute("aria-label");
for (const button of document.querySelectorAll(".search-button__button")) {
  const seen = button.textContent.replace(/\s+/g, " ").trim();
  if (seen) button.setAttribute("aria-label", seen);
}

for (const image of document.querySelectorAll('img[src^="data:image/gif"], img[src$=".gif"]')) {
  if (image.complete) stoppable(image);
  else image.addEventListener("load", () => stoppable(image), { once: true });
}
window.addEventListener("load", () => {
  (window.MathJax?.startup?.promise ?? Promise.resolve()).then(scrollable);
});
window.addEventListener("resize", scrollable);
