"""What a reviewer sees: MLflow's pages after a small study, and the report with its charts, in a real browser.

Needs Chromium and its driver (apt-get install chromium chromium-driver). Pictures of the pages are kept in the folder
RLHPO_SCREENSHOTS, if that is set.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.tracking.address import experiment_page, run_page
from tests.helpers.command_line import ROOT, rlhpo
from tests.helpers.servers import MlflowServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="needs a browser: apt-get install chromium chromium-driver"
    ),
]

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("RLHPO_SCREENSHOTS") or tmp_path_factory.mktemp("pictures")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for option in (*OPTIONS, f"--user-data-dir={profile}", "--window-size=1500,1000"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def study(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A finished one, with a trial that was made to fail and a registered model."""
    place = tmp_path_factory.mktemp("work")
    rlhpo("tune", ROOT / "examples" / "05-pipeline.yaml", "--tracking-uri", server.url, "--out", "loop", cwd=place)
    return StudyFolder.open(place / "loop")


def see(browser: WebDriver, address: str, *texts: str, picture: Path | None = None) -> str:
    """Open a page and wait until it shows all these texts; returns what it shows."""
    browser.get("about:blank")
    browser.get(address)
    return wait_for(browser, *texts, picture=picture)


def wait_for(browser: WebDriver, *texts: str, picture: Path | None = None) -> str:
    def shown(_: WebDriver) -> bool:
        found = body(browser)
        return all(text in found for text in texts)

    try:
        # MLflow replaces parts of its pages while they are being read.
        WebDriverWait(browser, 120, ignored_exceptions=(WebDriverException,)).until(shown)
    finally:
        for button in browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close assistant'], [aria-label='Close']"):
            with suppress(WebDriverException):
                button.click()
        if picture is not None:
            browser.save_screenshot(str(picture))
    return body(browser)


def body(browser: WebDriver) -> str:
    return str(browser.find_element(By.TAG_NAME, "body").text)


def charts(browser: WebDriver) -> int:
    """How many charts plotly has drawn."""
    return len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot:has(.main-svg)"))


@dataclass(frozen=True)
class Review:
    """Where a reviewer goes."""

    home: str
    experiment: str
    run_id: str
    study: StudyFolder

    @property
    def run(self) -> str:
        return run_page(self.home, self.experiment, self.run_id)

    def part(self, name: str) -> str:
        """A tab of the run's page."""
        page, _, mode = self.run.partition("?")
        return f"{page}/{name}?{mode}"


@pytest.fixture(scope="module")
def review(server: MlflowServer, study: StudyFolder) -> Review:
    version = MlflowClient(server.url).get_model_version_by_alias("car", "champion")
    run = MlflowClient(server.url).get_run(version.run_id)
    return Review(server.url, run.info.experiment_id, run.info.run_id, study)


def test_the_list_of_runs_has_the_study_with_its_trials_folded_away(
    browser: WebDriver, review: Review, pictures: Path
) -> None:
    page = experiment_page(review.home, review.experiment)
    shown = see(browser, page, "loop", "16 matching runs", picture=pictures / "runs.png")
    assert "trial-001" not in shown


def test_the_studys_page_says_what_was_tuned_and_what_came_of_it(
    browser: WebDriver, review: Review, pictures: Path
) -> None:
    shown = see(browser, review.run, "Child runs", "trial-015", "Registered models")
    assert "Best accuracy" in shown, "what came of it is seen before anything is clicked"
    browser.find_element(By.XPATH, "//button[contains(., 'Show more')]").click()
    shown = wait_for(browser, "Show less", picture=pictures / "study.png")
    note = MlflowClient(review.home).get_run(review.run_id).data.tags["mlflow.note.content"]
    (best,) = [line for line in note.splitlines() if line.startswith("| best |")]
    for fact in ("10 hyperparameters of XGBoost, on car.csv", "15 of 15 trials", best.split("|")[2].strip()):
        assert fact in shown
    assert "holdout.accuracy" in shown
    assert "car-train" in shown, "the data, by its digest"


def test_the_studys_curves_are_drawn(browser: WebDriver, review: Review, pictures: Path) -> None:
    see(browser, review.part("model-metrics"), "best", "holdout.accuracy")
    WebDriverWait(browser, 120).until(lambda _: charts(browser) >= 3)
    browser.save_screenshot(str(pictures / "curves.png"))


@pytest.mark.parametrize("name", ["progress", "importance", "parallel_coordinates", "slices", "timeline"])
def test_the_pictures_can_be_looked_at(browser: WebDriver, review: Review, pictures: Path, name: str) -> None:
    see(browser, review.part(f"artifacts/figures/{name}.png"), f"{name}.png")
    width = "return Math.max(0, ...[...document.images].filter(i => i.complete).map(i => i.naturalWidth))"
    WebDriverWait(browser, 120).until(lambda _: browser.execute_script(width) > 700)
    browser.save_screenshot(str(pictures / f"artifact-{name}.png"))


def test_the_registered_model_is_the_champion_and_tells_what_it_is(
    browser: WebDriver, review: Review, pictures: Path
) -> None:
    assert "@ champion" in see(browser, f"{review.home}/#/models", "car", "@ champion")
    shown = see(
        browser, f"{review.home}/#/models/car/versions/1", "@ champion", "Limits", picture=pictures / "model.png"
    )
    assert "trained on car.csv" in shown
    assert "holdout accuracy" in shown


def test_the_report_needs_no_network_and_draws_its_charts(
    browser: WebDriver, study: StudyFolder, pictures: Path
) -> None:
    page = study.path / "charts.html"
    rlhpo("report", study.path, "--html", page, cwd=study.path.parent)
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # what other pages have left there
    browser.get(page.as_uri())
    wanted = page.read_text().count('id="chart-')
    assert wanted >= 5
    WebDriverWait(browser, 120).until(lambda _: charts(browser) == wanted)
    assert "WebGL is not supported" not in body(browser)
    heard = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    assert heard == []
    wide, high = browser.execute_script("let e = document.documentElement; return [e.scrollWidth, e.scrollHeight]")
    assert wide <= browser.execute_script("return window.innerWidth"), "nothing is cut off at the right"
    browser.set_window_size(1200, min(high + 200, 8000))
    time.sleep(1)  # plotly redraws
    browser.save_screenshot(str(pictures / "report.png"))
