# SPDX-License-Identifier: MIT
"""The page of `bitbyte serve` in chromium: page_checks.py PROGRAM RUN SCREENSHOTS. Run by test_page.sh."""
import subprocess
import sys

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

program, run, screenshots = sys.argv[1:]
server = subprocess.Popen([program, "serve", run, "--port", "0", "--threads", "1", "--quiet"], stdout=subprocess.PIPE, text=True)
address = server.stdout.readline().split(": ", 1)[1].strip()


def browser(width, height, dark):
    options = webdriver.ChromeOptions()
    for argument in "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}":
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    if dark:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    driver.get(address)
    return driver


def wait(driver, condition, what):
    WebDriverWait(driver, 60, poll_frequency=0.05).until(lambda d: condition(), what)


def find(driver, css):
    return driver.find_element(By.CSS_SELECTOR, css)


def text_of(driver):
    return driver.execute_script("return document.getElementById('out').textContent")


def set_value(driver, name, value):
    driver.execute_script("const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.oninput && e.oninput()", name, value)


def quiet(driver):
    """Nothing that the page could not do: no refused script, no error."""
    messages = [m["message"] for m in driver.get_log("browser") if m["level"] == "SEVERE"]
    assert not messages, messages


def done(driver):
    return find(driver, "#write-status").text.endswith("bits a byte")


def check_write(driver):
    wait(driver, lambda: find(driver, "#name").text == "run", "the model's name")
    set_value(driver, "prompt", "<script>alert(")
    set_value(driver, "temperature", "0.5")
    set_value(driver, "max_tokens", "160")
    find(driver, "#start").click()
    wait(driver, lambda: done(driver), "the end of the text")
    text = text_of(driver)
    assert text.startswith("<script>alert(") and "<img src=x" in text and "\u21b5" in text, text
    assert "\u00e9" in text, "a character of two bytes: " + text
    assert not driver.execute_script("return document.querySelectorAll('#out script, #out img').length"), "text became markup"
    assert driver.execute_script("return [...document.querySelectorAll('#out span')].filter(s => s.style.backgroundColor).length") > 100
    driver.save_screenshot(screenshots + "/write.png")
    return text


def check_alternatives(driver, text):
    span = driver.execute_script("return [...document.querySelectorAll('#out span[data-at]')][20]")
    ActionChains(driver).move_to_element(span).perform()
    wait(driver, lambda: find(driver, "#pop").is_displayed(), "alternatives")
    buttons = driver.find_elements(By.CSS_SELECTOR, "#pop button")
    assert len(buttons) == 6 and buttons[0].text.endswith("%"), [b.text for b in buttons]
    driver.save_screenshot(screenshots + "/alternatives.png")
    at = int(span.get_attribute("data-at"))
    kept = driver.execute_script("return text.bytes.slice(0, arguments[0]).map(b => b.byte)", at)
    chosen = driver.execute_script("return text.bytes[arguments[0]].top[1][0]", at)
    buttons[1].click()
    wait(driver, lambda: done(driver), "the end of the text that goes on from there")
    now = driver.execute_script("return text.bytes.map(b => b.byte)")
    assert now[:at] == kept and now[at] == chosen and len(now) == at + 1 + 160, (len(now), at)
    assert text_of(driver) != text
    find(driver, "#out").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert find(driver, "#pop").is_displayed()
    driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not find(driver, "#pop").is_displayed()
    # the same seed, the same text
    find(driver, "#start").click()
    wait(driver, lambda: text_of(driver) == text, "the same text again")


def check_stop(driver):
    driver.execute_script("document.getElementById('max_tokens').max = 60000")  # this model is fast
    set_value(driver, "max_tokens", "60000")
    find(driver, "#clear").click()
    driver.execute_script("""document.getElementById('start').click();
        const timer = setInterval(() => { if (text.bytes.length > 40) { clearInterval(timer); document.getElementById('stop').click(); } }, 1)""")
    wait(driver, lambda: "stopped" in find(driver, "#write-status").text, "a stop")
    length = len(driver.execute_script("return text.bytes.map(b => b.byte)"))
    assert length < 60000, "it was not stopped: " + str(length)
    set_value(driver, "max_tokens", "32")
    find(driver, "#go-on").click()
    wait(driver, lambda: done(driver) and "stopped" not in find(driver, "#write-status").text, "more")
    assert len(driver.execute_script("return text.bytes")) == length + 32


def check_score(driver):
    find(driver, "#tab-score").click()
    find(driver, "#scored").send_keys("<script>alert(7)</script><img src=x QQQQ caf\u00e9")
    find(driver, "#do-score").click()
    wait(driver, lambda: "bits a byte" in find(driver, "#score-status").text, "a score")
    assert "48 bytes" in find(driver, "#score-status").text or "bytes" in find(driver, "#score-status").text
    assert find(driver, "#score-out").text.startswith("<script>alert(7)")
    alpha = driver.execute_script("""return [...document.querySelectorAll('#score-out span')].map(s => [s.textContent, parseFloat((s.style.backgroundColor.match(/[\\d.]+\\)$/) || ['0'])[0])])""")
    surprise = {c: a for c, a in alpha}
    assert surprise["Q"] > 0.3 > surprise["g"], surprise
    driver.save_screenshot(screenshots + "/score.png")
    set_value(driver, "scored", "x" * 5000)
    find(driver, "#do-score").click()
    wait(driver, lambda: "context" in find(driver, "#score-status").text, "what is wrong with a long text")


def check_model(driver):
    find(driver, "#tab-score").send_keys(Keys.ARROW_RIGHT)
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#shares rect"), "shares")
    assert len(driver.find_elements(By.CSS_SELECTOR, "#shares rect")) == 3 * 12
    assert "layers 2" in find(driver, "#facts").text and "steps 250" in find(driver, "#facts").text, find(driver, "#facts").text
    driver.save_screenshot(screenshots + "/model.png")


def check_phone(driver):
    wait(driver, lambda: find(driver, "#name").text == "run", "the model's name")
    set_value(driver, "max_tokens", "96")
    find(driver, "#start").click()
    wait(driver, lambda: done(driver), "the end of the text")
    width = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "wider than a phone: %s" % width
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(1, 4, 9)", background
    span = driver.execute_script("return [...document.querySelectorAll('#out span[data-at]')][30]")
    span.click()
    wait(driver, lambda: find(driver, "#pop").is_displayed(), "alternatives after a tap")
    pop = find(driver, "#pop").rect
    assert pop["x"] >= 0 and pop["x"] + pop["width"] <= 390, pop
    driver.save_screenshot(screenshots + "/phone_dark.png")
    unnamed = driver.execute_script("""return [...document.querySelectorAll('button, input, textarea, [role]')].filter(e => !(e.textContent.trim() || e.getAttribute('aria-label')
        || e.getAttribute('aria-labelledby') || (e.labels && e.labels.length) || e.getAttribute('role') === 'status')).map(e => e.id)""")
    assert not unnamed, unnamed


try:
    driver = browser(1100, 1000, False)
    text = check_write(driver)
    check_alternatives(driver, text)
    check_stop(driver)
    quiet(driver)
    check_score(driver)
    check_model(driver)
    driver.quit()
    driver = browser(390, 844, True)
    check_phone(driver)
    quiet(driver)
    driver.quit()
finally:
    server.terminate()
assert server.wait(60) == 0
print("write, stop, alternatives, score, model, phone, dark: the page works")
