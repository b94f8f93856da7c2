"""How soon a page of a run can be read in a real browser."""

from __future__ import annotations

import shutil
import statistics

from playwright.sync_api import sync_playwright

TIMES = 9

#: In the page: when the frame was shown that has the first rows of the timeline and the graph up to its end. Looked at
#: from within, for what a driver sees comes later by as much as it is busy itself.
_READ = """
const look = () => {
  if (document.querySelector(".wf-tl-step") && document.querySelector("svg.wf-graph .wf-end:last-of-type"))
    requestAnimationFrame(() => setTimeout(() => { window.readMs = performance.now(); }));
  else requestAnimationFrame(look);
};
look();
"""


def opened_ms(url: str) -> dict[str, float] | None:
    """Time from the address to a page that can be read, with nothing in the browser's cache; None: no browser.

    Raises:
        RuntimeError: The page does not open.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        took, busy = [], []
        for _ in range(TIMES):
            page = browser.new_page()  # in a context of its own
            page.add_init_script(_READ)
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(url)
            page.wait_for_function("window.readMs")
            took.append(page.evaluate("window.readMs"))
            metrics = devtools.send("Performance.getMetrics")["metrics"]
            busy.append(1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration"))
            page.close()
        browser.close()
    return {
        "median_ms": round(statistics.median(took), 1),
        "best_ms": round(min(took), 1),
        "worst_ms": round(max(took), 1),
        "cpu_ms": round(statistics.median(busy), 1),  # of the page's main thread, whatever else the machine does
    }
