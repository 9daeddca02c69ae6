//! A browser, spoken to through a pipe (Chromium's DevTools protocol): no driver, and
//! no crate beyond those that are here anyway.

use super::super::support::{Folder, LONG};
use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

/// The descriptors of the protocol's pipes are 3 and 4. A shell moves our two there,
/// which the standard library can't without unsafe code.
const START: &str = "exec \"$0\" --headless --no-sandbox --disable-gpu --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync \
    --disable-quic --hide-scrollbars --host-resolver-rules='MAP evil.example 127.0.0.1' \
    --user-data-dir=\"$1\" --remote-debugging-pipe 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    told: Receiver<Value>,
    last: u64,
    session: Option<String>,
    /// Exceptions, errors and violations of the policy, since it was last emptied.
    pub complaints: Vec<String>,
    /// What the page asked for.
    pub requests: Vec<String>,
    _profile: Folder,
}

impl Browser {
    /// Starts it; `None`, with a word, where there is no Chromium.
    pub fn start() -> Option<Browser> {
        let places = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];
        let Some(program) = places.into_iter().find(|place| Path::new(place).exists()) else {
            eprintln!("skipped: there is no Chromium here (Debian: apt install chromium)");
            return None;
        };

        let profile = Folder::new();
        let mut child = Command::new("sh")
            .args(["-c", START, program, &profile.arg("")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut browser = Browser {
            child,
            to,
            told: messages(from),
            last: 0,
            session: None,
            complaints: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let params = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", params);
        self.session = attached["sessionId"].as_str().map(str::to_string);

        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.size(1320, 900);
    }

    /// The next message, with a deadline. What it says of the page is kept.
    fn hear(&mut self) -> Value {
        let told = self.told.recv_timeout(LONG).expect("the browser is silent");
        match told["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Log.entryAdded" | "Page.javascriptDialogOpening") => {
                self.complaints.push(told["params"].to_string());
            }
            Some("Network.requestWillBeSent") => {
                let url = told["params"]["request"]["url"].as_str();
                self.requests.push(url.unwrap_or_default().to_string());
            }
            _ => {}
        }
        told
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = json!(self.last);
        let mut call = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        let call = format!("{call}\0");
        self.to.write_all(call.as_bytes()).expect("it has ended");

        loop {
            let told = self.hear();
            if told["id"] == id {
                assert!(told.get("error").is_none(), "{method}: {told}");
                return told["result"].clone();
            }
        }
    }

    /// Opens an address, and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        while self.hear()["method"] != "Page.loadEventFired" {}
    }

    /// The value of an expression on the page.
    pub fn see(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let told = self.call("Runtime.evaluate", params);
        assert!(
            told.get("exceptionDetails").is_none(),
            "{expression}: {told}"
        );
        told["result"]["value"].clone()
    }

    /// Waits until this is true on the page.
    pub fn until(&mut self, what: &str) {
        let look = format!(
            "new Promise((done) => {{
                const from = performance.now();
                const look = () => {{
                    if ({what}) return done(true);
                    if (performance.now() - from > {}) return done(false);
                    setTimeout(look, 20);
                }};
                look();
            }})",
            LONG.as_millis() / 2
        );
        assert_eq!(self.see(&look), json!(true), "waited in vain: {what}");
    }

    /// The text of an element.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = json!(selector);
        let text = self.see(&format!("document.querySelector({selector}).textContent"));
        text.as_str().unwrap().to_string()
    }

    /// Clicks on an element.
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.see(&format!("document.querySelector({selector}).click()"));
    }

    /// Clicks on an element that leads to another page, and waits until that is loaded.
    pub fn follow(&mut self, selector: &str) {
        let selector = json!(selector);
        // Later, as the page is gone before the answer otherwise.
        self.see(&format!(
            "void setTimeout(() => document.querySelector({selector}).click(), 50)"
        ));
        while self.hear()["method"] != "Page.loadEventFired" {}
    }

    /// Presses a key, by its name.
    pub fn press(&mut self, key: &str) {
        let is_character = key.chars().count() == 1;
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && (is_character || key == "Enter") {
                event["text"] = json!(if key == "Enter" { "\r" } else { key });
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Makes the window this large.
    pub fn size(&mut self, width: u32, height: u32) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700
        });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// Prefers `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        let params = json!({"features": [feature]});
        self.call("Emulation.setEmulatedMedia", params);
    }

    /// A picture of the page: of the whole, or of its upper part, smaller.
    pub fn picture(&mut self, path: &Path, height: Option<f64>) {
        let mut params = json!({"captureBeyondViewport": true});
        if let Some(height) = height {
            let scale = 0.72;
            params["clip"] =
                json!({"x": 0, "y": 0, "width": 1320, "height": height, "scale": scale});
        }
        let shot = self.call("Page.captureScreenshot", params);
        let data = shot["data"].as_str().unwrap();
        let picture = base64::engine::general_purpose::STANDARD.decode(data);
        std::fs::write(path, picture.unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The messages of the browser, each ended by a zero byte.
fn messages(pipe: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, receiver) = channel();
    spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let Ok(told) = serde_json::from_slice(&message) else {
                return;
            };
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    receiver
}
