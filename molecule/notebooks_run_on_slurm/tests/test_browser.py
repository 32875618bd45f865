# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person with a real browser, from the login page to the log-out. Pictures go to .cache/screenshots."""

import subprocess
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[3]
URL = "https://10.213.78.10:8443"


@pytest.fixture
def browser(hubs, tmp_path):
    """Return Debian's Chromium, which trusts the cluster's authority because it is in the user's certificates."""
    store = tmp_path / ".pki/nssdb"
    store.mkdir(parents=True)
    authority = hubs.site.path / ".secrets/tls_ca/ca.crt"
    subprocess.run(["certutil", "-d", f"sql:{store}", "-N", "--empty-password"], check=True)
    trust = ["-A", "-t", "C,,", "-n", "cluster", "-i", str(authority)]
    subprocess.run(["certutil", "-d", f"sql:{store}", *trust], check=True)
    options = webdriver.ChromeOptions()
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"]
    for argument in arguments:
        options.add_argument(argument)
    service = webdriver.ChromeService("/usr/bin/chromedriver", env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.save_screenshot(str(ROOT / ".cache/screenshots/last.png"))
    driver.quit()
    hubs.site.root("head").check_output("scancel --user=alice")


def test_a_person_with_a_browser_gets_from_the_login_page_to_a_result_and_out_again(site, browser):
    pictures = ROOT / ".cache/screenshots"
    pictures.mkdir(parents=True, exist_ok=True)

    def wait(what, seconds=120):
        return WebDriverWait(browser, seconds, 0.5).until(lambda driver: what())

    def find(selector):
        return wait(lambda: browser.find_element(By.CSS_SELECTOR, selector))

    def shoot(name):
        browser.save_screenshot(str(pictures / f"{name}.png"))

    password = site.root("head").check_output("su - alice -c jupyterhub-password").strip()
    browser.get(URL)
    find("#username_input").send_keys("alice")
    find("#password_input").send_keys(password)
    shoot("1-login")
    find("#login_submit").click()
    wait(lambda: "/hub/spawn" in browser.current_url or "/hub/home" in browser.current_url)
    browser.get(f"{URL}/hub/spawn")
    partition = find("select[name=partition]")
    assert "main: 3 x" in partition.text
    shoot("2-form")
    browser.find_element(By.CSS_SELECTOR, "form input[type=submit], form button[type=submit]").click()
    wait(lambda: "/hub/spawn-pending/" in browser.current_url)
    wait(lambda: "Job " in find("body").text)
    shoot("3-pending")
    wait(lambda: "/user/alice/lab" in browser.current_url, 180)
    # Without what an earlier visit left open.
    browser.get(f"{URL}/user/alice/lab?reset")
    find(".jp-LauncherCard[data-category='Notebook']").click()
    # The kernel is there, and the new notebook's first cell has the keyboard.
    wait(lambda: "| Idle" in find("#jp-main-statusbar").text)
    wait(lambda: "cm-content" in browser.switch_to.active_element.get_attribute("class"))
    browser.switch_to.active_element.send_keys("print(1 + 1)")
    browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.ENTER)
    shoot("4-cell")
    outputs = ".jp-OutputArea-output"
    wait(lambda: [one for one in browser.find_elements(By.CSS_SELECTOR, outputs) if one.text.strip() == "2"])
    shoot("5-result")
    browser.get(f"{URL}/hub/home")
    button = find("#stop")

    def stopped():
        # The page's scripts may come after the button: click until it does something.
        if button.is_displayed():
            button.click()
        return not button.is_displayed()

    wait(stopped)
    shoot("6-home")
    browser.get(f"{URL}/hub/logout")
    browser.get(f"{URL}/hub/home")
    wait(lambda: "/hub/login" in browser.current_url)
    shoot("7-out")
