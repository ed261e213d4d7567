"""The page in a real Chromium, as somebody at a screen uses it. Needs Debian's chromium and chromium-driver."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import numpy as np
import pytest
from misaligned import rig_pair, rig_warp
from PIL import Image

from langfuse_jax import Fuser
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.page.load import MAX_BYTES

pytestmark = pytest.mark.browser
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


SIZES = {"desktop": (1280, 1500), "phone": (390, 844)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a running `langfuse-jax demo`, and the file of what it says on its console."""
    tmp, console = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("console") / "console.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with console.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "langfuse_jax", "demo", "--port", str(port)],
            env=os.environ | {"TMPDIR": str(tmp), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # programs run a few times
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    wait(lambda: f"http://127.0.0.1:{port}/ shows the page" in console.read_text(), 90)
    yield f"http://127.0.0.1:{port}/", console
    process.terminate()
    process.wait(20)
    assert not list(tmp.iterdir())  # what was uploaded does not stay
    assert "Traceback" not in console.read_text()


@pytest.fixture
def address(server):
    return server[0]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module", params=SIZES)
def chromium(request, downloads, tmp_path_factory):
    """A Chromium of one width, and the name of that; it keeps a log of its requests."""
    from selenium import webdriver

    width, height = SIZES[request.param]
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tmp_path_factory.mktemp("profile")
    for flag in [*QUIET.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
        options.add_argument(flag)
    if request.param == "phone":
        metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver, request.param
    driver.quit()


@pytest.fixture
def browser(chromium, address):
    """The page, opened anew."""
    driver, _ = chromium
    driver.get(address)
    wait(lambda: driver.find_elements("css selector", "#infrared input[type=file]"))
    return driver


def wait(condition, seconds=60):
    """What `condition` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError("what was waited for did not appear")


def upload(browser, role, *paths):
    field = browser.find_element("css selector", f"#{role} input[type=file]")
    field.send_keys("\n".join(map(str, paths)))


def shown(browser, place):
    """The addresses of the pictures inside an element that have been loaded."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(i => i.naturalWidth > 0).map(i => i.src)"
    return browser.execute_script(script, f"{place} img")


def note(browser, field):
    script = "return [...document.querySelectorAll(arguments[0])].map(p => p.textContent).join(' ')"
    return browser.execute_script(script, f"#{field}_note p, #{field}_bytes")


def press(browser, place, text=""):
    """Clicks the element inside which `text` stands, wherever the page is scrolled to."""
    found = wait(lambda: [e for e in browser.find_elements("css selector", place) if text in e.text and e.is_enabled()])
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
    found[0].click()


def new_result(browser, old=()):
    return wait(lambda: len(found := shown(browser, "#result")) == 2 and found != list(old) and found)


def screenshot(browser, name):
    if folder := os.environ.get("LANGFUSE_JAX_SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{name}.png")


def write_pair(folder, images):
    paths = {}
    for role, image in zip(("visible", "infrared"), images, strict=True):
        paths[role] = folder / f"my_{role}.png"
        Image.fromarray(image).save(paths[role])
    return paths


@pytest.fixture
def files(tmp_path):
    return write_pair(tmp_path, night_scene(200, 272, seed=3))


def give(browser, files):
    for role, path in files.items():
        upload(browser, role, path)
        wait(lambda role=role: shown(browser, f"#{role}"))


def test_a_pair_is_led_by_words_and_downloaded(browser, chromium, files, downloads):
    shutil.rmtree(downloads, ignore_errors=True)
    give(browser, files)
    press(browser, "#fuse")
    plain = new_result(browser)
    press(browser, "#goals button", "a bright image")  # acts at once
    bright = new_result(browser, plain)
    assert bright[0] == plain[0]  # the visible image
    number = browser.find_element("css selector", "#strength input[type=range]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", number)
    number.send_keys("\ue012" * 4)  # left: to 0.8
    weaker = new_result(browser, bright)
    time.sleep(1)  # the last of the four
    press(browser, "#ask")
    table = wait(lambda: "Qabf" in (text := browser.find_element("css selector", "#metrics").text) and text)
    assert "structural similarity" in table and "nan" not in table.lower()
    script = """const box = document.querySelector('#metrics table').getBoundingClientRect();
      return [box.left, box.right, document.documentElement.scrollWidth, document.documentElement.clientWidth]"""
    left, right, wide, width = browser.execute_script(script)
    assert 0 <= left < right <= width and wide <= width
    browser.execute_script("document.querySelector('#metrics .tip').focus()")
    assert "Higher is better." in browser.find_element("css selector", "#metrics .tip > span").text
    screenshot(browser, chromium[1])
    press(browser, "#download")
    saved = downloads / "my_visible_fused.png"
    wait(lambda: saved.exists() and saved.stat().st_size)
    with urlopen(shown(browser, "#result")[1]) as picture:
        assert saved.read_bytes() == picture.read()
    default = Image.open(urlopen(plain[1]))
    assert np.asarray(Image.open(saved)).mean() > np.asarray(default).mean() + 10
    press(browser, "#right input")
    press(browser, "[role=option]", "fine detail (2 pixels)")
    new_result(browser, weaker)
    wait(lambda: "blue is from the visible image" in browser.find_element("css selector", "#legend").text)
    assert not browser.find_element("css selector", "#metrics").text  # that of another result


def test_mistakes_stand_beside_their_field_until_they_are_mended(browser, chromium, files, tmp_path):
    press(browser, "#fuse")
    wait(lambda: "Give a visible image" in note(browser, "visible"))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(files["infrared"].read_bytes()[:300])
    press(browser, "#example")
    wait(lambda: shown(browser, "#visible") and shown(browser, "#infrared"))
    wait(lambda: not note(browser, "visible"))
    press(browser, "#fuse")
    new_result(browser)
    goal = browser.find_element("css selector", "#goal :is(input, textarea)")
    goal.send_keys("zebra\n")
    wait(lambda: "never taught zebra" in note(browser, "goal"))
    place, field = (browser.find_element("css selector", name).rect for name in ("#goal_note p", "#goal"))
    assert 0 <= place["y"] - field["y"] - field["height"] < 40  # beside it
    screenshot(browser, f"{chromium[1]}_error")
    wait(lambda: not shown(browser, "#result"))
    assert not browser.find_element("css selector", "#download").is_enabled()
    goal.send_keys(" in a dark image\n")
    new_result(browser)
    wait(lambda: "nearest to it" in note(browser, "goal"))  # a remark is left
    press(browser, "#infrared [title='Remove Image']")
    wait(lambda: not shown(browser, "#infrared") and not shown(browser, "#result"))
    upload(browser, "infrared", damaged)
    time.sleep(1.5)  # no picture tells when a damaged one has arrived
    press(browser, "#fuse")
    wait(lambda: "damaged.png: cannot be read" in note(browser, "infrared"))
    assert "/tmp" not in note(browser, "infrared")
    assert not browser.find_elements("css selector", ".toast-body")


def test_alignment_on_request(browser, tmp_path):
    visible, infrared = rig_pair(rig_warp())
    give(browser, write_pair(tmp_path, (visible, infrared[:, :600])))
    press(browser, "#fuse")
    wait(lambda: "tick the box" in note(browser, "infrared"))
    press(browser, "#align input")
    wait(lambda: "accepted" in note(browser, "align"))
    new_result(browser)
    assert not note(browser, "infrared")


def test_many_pairs_come_back_as_a_zip(browser, downloads, tmp_path):
    shutil.rmtree(downloads, ignore_errors=True)
    for seed in range(2):
        for role, image in zip(("vi", "ir"), night_scene(200, 272, seed), strict=True):
            Image.fromarray(image).save(tmp_path / f"{seed}_{role}.png")
    press(browser, "#many button")
    press(browser, "#many_fuse")
    wait(lambda: "Give visible and infrared" in note(browser, "many"))
    upload(browser, "many_visible", tmp_path / "0_vi.png", tmp_path / "1_vi.png")
    upload(browser, "many_infrared", tmp_path / "0_ir.png", tmp_path / "1_ir.png")
    wait(lambda: len(browser.find_elements("css selector", "#many tr.file")) == 4)
    press(browser, "#many_fuse")
    wait(lambda: "2 of 2 pairs fused" in note(browser, "many"))
    press(browser, "#many_download")
    saved = downloads / "fused.zip"
    wait(lambda: saved.exists() and saved.stat().st_size)
    assert zipfile.ZipFile(saved).namelist() == ["0.png", "1.png"]


def test_a_file_of_too_many_bytes(browser, files, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(MAX_BYTES + 1))
    upload(browser, "visible", large)
    wait(lambda: "large.png: is over 32 MiB" in note(browser, "visible"))
    upload(browser, "visible", files["visible"])
    wait(lambda: shown(browser, "#visible") and not note(browser, "visible"))


def test_nothing_is_asked_of_other_hosts(browser, address):
    wait(lambda: "Fuse" in browser.find_element("css selector", "#fuse").text)
    time.sleep(1)
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    hosts = {urlparse(url).netloc for url in urls if url.startswith(("http", "ws"))}
    assert len(urls) > 3 and hosts == {urlparse(address).netloc}


def test_a_model_without_words_shows_no_goal(tmp_path):
    from langfuse_jax.page.layout import build_page

    page = build_page(Fuser.load(model="ldfusion"), tmp_path)
    parts = [part["props"] for part in page.config["components"] if part["props"].get("elem_id")]
    assert {part["elem_id"] for part in parts if not part.get("visible", True)} == {"goal", "goals", "strength"}


def test_the_byte_limit_holds_without_the_page_too(address):
    """The server refuses what the page would not have sent."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(MAX_BYTES + 1)
    body += b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{address}gradio_api/upload", body, kind))
    assert error.value.code == 413
