"""The pages for those who do not see colours, see little, or hear them read."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from apps import gallery
from browser import PATIENCE_MS, Open

expect.set_options(timeout=PATIENCE_MS)

#: Texts whose contrast with what is behind them is below what WCAG AA asks for (4.5, large ones 3).
FAINT_TEXTS = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return { r, g, b, a: a / 255 };
  };
  const light = ({ r, g, b }) => {
    const linear = (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((one) => linear(one / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    const box = node.closest("svg") && node.parentElement.querySelector("rect");
    if (box && rgb(getComputedStyle(box).fill).a === 1) return rgb(getComputedStyle(box).fill);
    for (let one = node; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.a > 0.9) return colour;
    }
    return { r: 255, g: 255, b: 255 };
  };
  const faint = [];
  for (const node of document.querySelectorAll(".wf *")) {
    const text = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data.trim()).join("");
    if (!text || !node.checkVisibility() || node.closest(".visually-hidden, :disabled, title, option")) continue;
    const style = getComputedStyle(node);
    const [one, two] = [light(rgb(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    const large = parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700;
    if (contrast >= (large ? 3 : 4.5)) continue;
    faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)} (${node.getAttribute("class")})`);
  }
  return [...new Set(faint)];
}
"""

#: What can be used and has no name.
NAMELESS = """
() => ["button", "a", "input", "select", "textarea", "[role=region]", "[tabindex]"]
  .flatMap((kind) => [...document.querySelectorAll(`.wf ${kind}`)])
  .filter((node) => node.checkVisibility())
  .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length
    || document.getElementById(node.getAttribute("aria-labelledby"))))
  .map((node) => node.outerHTML.slice(0, 100))
"""


def open_pages(visit: Open, *, dark: bool) -> list[Page]:
    gallery.order.submit("bob@example.org", "Bell", 250, broken="7", run_id=f"read-{dark}")
    gallery.approve.submit(1, run_id=f"ask-{dark}")
    run = visit(f"/workflows/run/read-{dark}", dark=dark)
    expect(run.locator(".wf-head").get_by_text("compensated")).to_be_visible()
    waiting = visit(f"/workflows/run/ask-{dark}", dark=dark)
    expect(waiting.get_by_role("button", name="Resolve…")).to_be_visible()
    waiting.get_by_role("button", name="Reject…").click()
    expect(waiting.get_by_label("Message")).to_be_focused()
    listed = visit(dark=dark)
    expect(listed.locator("#wf-rows tr").first).to_be_visible()
    expect(listed.locator("#wf-states button").first).to_be_visible()
    return [run, waiting, listed]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_stands_out_and_all_that_can_be_used_has_a_name(visit: Open, dark: bool):
    for page in open_pages(visit, dark=dark):
        assert page.evaluate(FAINT_TEXTS) == []
        assert page.evaluate(NAMELESS) == []


def test_the_graph_leads_to_the_timeline_by_keyboard(visit: Open):
    gallery.order.submit("ada@example.org", "Anvil", 1, run_id="keys").result(timeout_s=30)
    page = visit("/workflows/run/keys")
    node = page.locator('a[data-place="1.0"]')
    expect(node).to_be_visible()

    node.focus()
    page.keyboard.press("Enter")

    expect(page.locator('[id="step-1.0"] button')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator('[id="step-1.0"] button')).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".wf-tl-panel pre")).to_contain_text("reservation of Anvil")
