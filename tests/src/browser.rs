//! Chromium, without a window, as a judge of the guest's page: by the `DevTools` protocol over a pipe.

use core::time::Duration;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::Process;
use crate::temporary::Temporary;
use crate::{PATIENCE, built};

/// A way to look at the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What to call it.
    pub name: &'static str,
    /// Size of the window in CSS pixels.
    pub size: (u32, u32),
    /// `prefers-color-scheme: dark`.
    pub is_dark: bool,
    /// Whether scripts run.
    pub has_scripts: bool,
}

impl Look {
    /// The ways the page is looked at.
    pub const ALL: [Self; 5] = [
        Self::new("desktop, light", (1280, 860), false),
        Self::new("desktop, dark", (1280, 860), true),
        Self::new("phone, light", (360, 780), false),
        Self::new("phone, dark", (360, 780), true),
        Self {
            has_scripts: false,
            ..Self::new("phone, without scripts", (360, 780), false)
        },
    ];

    const fn new(name: &'static str, size: (u32, u32), is_dark: bool) -> Self {
        Self {
            name,
            size,
            is_dark,
            has_scripts: true,
        }
    }

    /// The file of its screenshot, in `build/judges`.
    #[must_use]
    pub fn file(&self) -> String {
        format!(
            "page-{}.png",
            self.name.replace(", ", "-").replace(' ', "-")
        )
    }
}

/// Looks at the page of a guest's HTTP server at this port of 127.0.0.1, leaves a screenshot in `build/judges`, and
/// returns what the page shows, or what is wrong with it.
///
/// # Errors
/// What is wrong.
pub fn look(port: u16, look: &Look) -> Result<String, String> {
    let base = format!("http://127.0.0.1:{port}/");
    let mut browser = Browser::start();
    for domain in ["Page", "Runtime", "Network", "Log"] {
        browser.call(&format!("{domain}.enable"), &json!({}));
    }
    let (width, height) = look.size;
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 }),
    );
    let scheme = if look.is_dark { "dark" } else { "light" };
    let scheme = json!({ "name": "prefers-color-scheme", "value": scheme });
    browser.call(
        "Emulation.setEmulatedMedia",
        &json!({ "features": [scheme] }),
    );
    let is_off = !look.has_scripts;
    browser.call(
        "Emulation.setScriptExecutionDisabled",
        &json!({ "value": is_off }),
    );
    browser.call("Page.navigate", &json!({ "url": base }));

    let shown = if look.has_scripts {
        browser.wait_until("/^± [1-9]/.test(document.getElementById('bound').textContent)")?;
        browser.wait_until("document.getElementById('p0').getAttribute('d')?.includes('L')")?;
        let clock = "document.getElementById('clock').textContent";
        let first = browser.text(clock);
        browser.wait_until(&format!(
            "{clock} != '{first}' && /^\\d\\d:\\d\\d:\\d\\d\\.\\d$/.test({clock})"
        ))?;
        let bound = browser.text("document.getElementById('bound').textContent");
        format!("{} {bound}", browser.text(clock))
    } else {
        browser.wait_until("document.body?.innerText.includes('TAI-UTC 37')")?;
        browser.text("document.querySelector('noscript').innerText.split('\\n')[0]")
    };
    // Not innerWidth: a phone zooms out to what is too wide.
    let wide = browser.evaluate("document.documentElement.scrollWidth");
    let image = browser.call("Page.captureScreenshot", &json!({ "format": "png" }));
    let image = image["data"].as_str().map(decoded).unwrap_or_default();
    fs::write(built("judges", "make judges").join(look.file()), image).expect("a file");
    if wide.as_u64().is_none_or(|wide| wide > width.into()) {
        return Err(format!("it is {wide} pixels wide in a window of {width}"));
    }
    let ink = browser.text("getComputedStyle(document.body).color");
    if is_light(&ink) != look.is_dark {
        return Err(format!("its text is {ink}"));
    }
    browser.complaints(&base)?;
    Ok(shown)
}

struct Browser {
    commands: File,
    messages: Receiver<Value>,
    session: Value,
    next: u64,
    events: Vec<Value>,
    // Behind what it is asked through: when that is closed it ends.
    _process: Process,
    _directory: Temporary,
}

impl Browser {
    /// Starts it with a page that is empty.
    fn start() -> Self {
        let directory = Temporary::directory("browser");
        let (from_us, to_us) = (directory.path().join("in"), directory.path().join("out"));
        let made = Command::new("mkfifo").args([&from_us, &to_us]).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        let script = "exec chromium \"$@\" 3<\"$0/in\" 4>\"$0/out\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(directory.path());
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-pipe",
            // Nothing but this host can be found.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]);
        command.arg(format!(
            "--user-data-dir={}",
            directory.path().join("profile").display()
        ));
        let process = Process::start(command.env("HOME", directory.path()));
        let commands = File::options().write(true).open(from_us).expect("a pipe");
        let answers = open(&to_us);
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            commands,
            messages,
            session: Value::Null,
            next: 0,
            events: Vec::new(),
            _process: process,
            _directory: directory,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        browser
    }

    /// Runs a command of the protocol.
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        let sent = self.commands.write_all(format!("{message}\0").as_bytes());
        sent.expect("chromium runs: `make judges` installs it");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("chromium has no answer to {method}"));
            if message["id"] == self.next {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", &params)["result"]["value"].clone()
    }

    fn text(&mut self, expression: &str) -> String {
        self.evaluate(expression)
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn wait_until(&mut self, condition: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(condition) != true {
            if Instant::now() >= deadline {
                let shown = self.text("document.body.innerText");
                return Err(format!("{condition} does not come true: {shown}"));
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the browser had against the page, and what the page asked of anybody else.
    fn complaints(&self, base: &str) -> Result<(), String> {
        for event in &self.events {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => {
                    return Err(format!("the browser complains: {params}"));
                }
                Some("Network.requestWillBeSent") => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    if !url.starts_with(base) && !url.starts_with("data:") {
                        return Err(format!("it asks for {url}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Opens a pipe for reading, which waits for the other end.
fn open(path: &Path) -> File {
    File::open(path).expect("a pipe")
}

/// Whether `rgb(R, G, B)` is nearer to white than to black.
fn is_light(color: &str) -> bool {
    let numbers = color.split(|byte: char| !byte.is_ascii_digit());
    let sum: u32 = numbers
        .filter_map(|digits| digits.parse::<u32>().ok())
        .sum();
    sum > 3 * 128
}

/// The bytes that Base64 stands for (RFC 4648 §4).
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes() {
        let Some(value) = DIGITS.iter().position(|known| *known == digit) else {
            break;
        };
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("masked"));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text), bytes.as_bytes());
        }
    }

    #[test]
    fn colours() {
        assert!(is_light("rgb(233, 228, 218)") && !is_light("rgb(35, 33, 29)"));
    }
}
