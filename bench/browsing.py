"""How soon a page of a run can be read in a real browser."""

from __future__ import annotations

import shutil
import statistics
import time

from playwright.sync_api import sync_playwright

TIMES = 9


def opened_ms(url: str) -> dict[str, float] | None:
    """Time from the address to the first row of the timeline and the end of the graph; None: no browser.

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
            page = browser.new_page()
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            began_s = time.perf_counter()
            page.goto(url)
            page.locator(".wf-tl-step").first.wait_for(state="attached")
            page.locator("svg.wf-graph .wf-end").last.wait_for(state="attached")
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            took.append((time.perf_counter() - began_s) * 1000)
            metrics = devtools.send("Performance.getMetrics")["metrics"]
            busy.append(1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration"))
            page.close()
        browser.close()
    return {
        "median_ms": round(statistics.median(took), 1),
        "best_ms": round(min(took), 1),
        "cpu_ms": round(statistics.median(busy), 1),  # of the page's main thread, whatever else the machine does
    }
