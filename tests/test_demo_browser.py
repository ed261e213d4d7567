"""The page in a real Chromium, as somebody at a screen uses it. Needs Debian's chromium and chromium-driver."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import Fuser
from langfuse_jax.commands.demo import MAX_BYTES
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import to_uint8

pytestmark = pytest.mark.browser
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,1500"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A running `langfuse-jax demo`."""
    tmp = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "langfuse_jax", "demo", "--port", str(port)],
        env=os.environ | {"TMPDIR": str(tmp)},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/ shows the page" in line
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.wait(20)
    assert not list(tmp.iterdir())  # what was uploaded does not stay


@pytest.fixture
def browser(address, tmp_path):
    """The page in a Chromium that keeps a log of its requests and downloads to `tmp_path`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in [*QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.get(address)
    wait(lambda: driver.find_elements("css selector", "#infrared input[type=file]"))
    yield driver
    driver.quit()


def wait(condition, seconds=30):
    """What `condition` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError("what was waited for did not appear")


def upload(browser, role, path):
    browser.find_element("css selector", f"#{role} input[type=file]").send_keys(str(path))


def shown(browser, place):
    """The addresses of the pictures inside an element that have been loaded."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(i => i.naturalWidth > 0).map(i => i.src)"
    return browser.execute_script(script, f"{place} img")


def message(browser):
    return " ".join(toast.text for toast in browser.find_elements("css selector", ".toast-body"))


def press(browser):
    browser.find_element("css selector", "#fuse").click()


@pytest.fixture
def files(tmp_path):
    paths = {}
    for role, image in zip(("visible", "infrared"), night_scene(200, 272, seed=3), strict=True):
        paths[role] = tmp_path / f"my_{role}.png"
        Image.fromarray(image).save(paths[role])
    return paths


def test_two_uploads_become_a_picture_with_metrics_to_download(browser, files, tmp_path):
    for role, path in files.items():
        upload(browser, role, path)
        wait(lambda role=role: shown(browser, f"#{role}"))
    press(browser)
    assert len(wait(lambda: len(found := shown(browser, "#result")) == 2 and found)) == 2
    table = wait(lambda: "Qabf" in (text := browser.find_element("css selector", "#metrics").text) and text)
    assert "structural similarity" in table and "nan" not in table.lower()
    browser.find_element("css selector", "#download").click()
    saved = tmp_path / "my_visible_fused.png"
    wait(lambda: saved.exists() and saved.stat().st_size)
    expected = Fuser.load()(*(np.asarray(Image.open(path)) for path in files.values()))
    assert np.abs(np.int32(Image.open(saved)) - np.int32(to_uint8(expected))).max() <= 1
    if folder := os.environ.get("LANGFUSE_JAX_SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/demo.png")
    assert not message(browser)


def test_the_example_fills_both_fields(browser):
    browser.find_element("css selector", ".gallery-item, .table-wrap tbody tr").click()
    wait(lambda: shown(browser, "#visible") and shown(browser, "#infrared"))


def test_wrong_files_show_a_message(browser, files, tmp_path):
    press(browser)
    wait(lambda: "Give a visible image" in message(browser))
    upload(browser, "visible", files["visible"])
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(files["infrared"].read_bytes()[:300])
    upload(browser, "infrared", damaged)
    wait(lambda: shown(browser, "#visible"))
    time.sleep(2)  # no picture tells when a damaged one has arrived
    press(browser)
    wait(lambda: "damaged.png: cannot be read" in message(browser))
    assert str(tmp_path) not in message(browser) and "/tmp" not in message(browser)
    if folder := os.environ.get("LANGFUSE_JAX_SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/demo_error.png")


def test_a_file_of_too_many_bytes_shows_a_message(browser, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(MAX_BYTES + 1))
    upload(browser, "visible", large)
    wait(lambda: "exceed" in message(browser).lower())


def test_nothing_is_asked_of_other_hosts(browser, address):
    wait(lambda: "Fuse" in browser.find_element("css selector", "#fuse").text)
    time.sleep(2)
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    hosts = {urlparse(url).netloc for url in urls if url.startswith(("http", "ws"))}
    assert len(urls) > 3 and hosts == {urlparse(address).netloc}


def test_the_byte_limit_holds_without_the_page_too(address):
    """The server refuses what the page would not have sent."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(MAX_BYTES + 1)
    body += b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{address}gradio_api/upload", body, kind))
    assert error.value.code == 413
