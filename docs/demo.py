#!/usr/bin/env python3
"""Records docs/demo.svg: a slow whois server, a proxy in front of it, three requests.

    cargo build --release && docs/demo.py target/release/poetry

Runs the given binary on loopback ports and draws what it printed, each line at the time
it appeared. Needs Python 3 and nothing else.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from html import escape

ANSWER = """\
Domain Name: EXAMPLE.NET
Registrar: Example Registrar
Creation Date: 1995-08-24
Registry Expiry: 2027-08-23
Name Server: A.NS.EXAMPLE
"""
SERVER_PORT, PROXY_PORT = 4300, 4343  # the ones to show; any free ones if these are taken
PAUSE = 3.0  # seconds for which the last picture stands before the recording repeats

WIDTH, PAD, LINE, SIZE, BAR = 860, 14, 19, 13, 26
COLOURS = {"command": "#e6edf3", "out": "#a5d6ff", "log": "#8b949e", "note": "#7ee787"}


class Pane:
    """One terminal: a title, and lines of (seconds, kind, text)."""

    def __init__(self, title, begun):
        self.title, self.begun, self.lines = title, begun, []

    def add(self, kind, text):
        self.lines.append((time.monotonic() - self.begun, kind, text))

    def follow(self, pipe, kind):
        thread = threading.Thread(target=lambda: [self.add(kind, line.rstrip()) for line in pipe])
        thread.start()
        return thread


def free(port):
    """Returns `port` if nothing listens there, or else any free port."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
                return probe.getsockname()[1]
            except OSError:
                continue
    sys.exit("no free port")


def start(binary, *args):
    pipe = subprocess.PIPE
    return subprocess.Popen([binary, *args], stdout=pipe, stderr=pipe, text=True)


def fetch(binary, pane, port):
    """Runs one client in `pane`, to its end, and notes how long it took."""
    command = ["fetch", "--ask", "example.net", str(port)]
    pane.add("command", "$ poetry " + " ".join(command))
    begun = time.monotonic()
    client = start(binary, *command)
    follow = [pane.follow(client.stdout, "out"), pane.follow(client.stderr, "log")]
    code = client.wait()
    took = time.monotonic() - begun
    for thread in follow:
        thread.join()
    if code != 0:
        sys.exit(f"poetry fetch ended with {code}")
    pane.add("note", f"# {took:.1f} s" if took >= 0.1 else f"# {took * 1000:.0f} ms")


def record(binary):
    begun = time.monotonic()
    proxy_pane = Pane("the proxy, in front of a whois server that takes two seconds", begun)
    first = Pane("a client", begun)
    second = Pane("another client, one second later", begun)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "example.net.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(ANSWER)
        server_port, proxy_port = free(SERVER_PORT), free(PROXY_PORT)
        slow = ["--delay", "250ms", "--num-bytes", "15"]
        server = start(
            binary, "serve", "--protocol", "line", "--listen", str(server_port), *slow, path
        )
        server.stdout.readline()

        command = ["proxy", "--protocol", "line", "--listen", str(proxy_port), str(server_port)]
        proxy_pane.add("command", "$ poetry " + " ".join(command))
        proxy = start(binary, *command)
        proxy_pane.add("out", proxy.stdout.readline().rstrip())
        log = proxy_pane.follow(proxy.stderr, "log")
        try:
            time.sleep(1)
            leader = threading.Thread(target=fetch, args=(binary, first, proxy_port))
            leader.start()
            time.sleep(1)
            fetch(binary, second, proxy_port)
            leader.join()
            time.sleep(1)
            fetch(binary, second, proxy_port)
            time.sleep(0.2)
        finally:
            end = time.monotonic() - begun
            for process in (proxy, server):
                process.send_signal(signal.SIGTERM)
                process.wait()
            log.join()
    # What the proxy prints while it is being stopped is no part of the recording.
    proxy_pane.lines = [line for line in proxy_pane.lines if line[0] < end]
    return proxy_pane, first, second


def draw(panes):
    top, left, right = panes
    total = max(line[0] for pane in panes for line in pane.lines) + PAUSE
    style, body = [], []

    def pane_height(rows):
        return BAR + PAD + rows * LINE + PAD // 2

    def place(pane, x, y, width, height):
        body.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#0d1117"/>'
            f'<text x="{x + PAD}" y="{y + 18}" class="title">{escape(pane.title)}</text>'
        )
        for row, (at, kind, text) in enumerate(pane.lines):
            name = f"l{len(style)}"
            share = 100 * at / total
            style.append(
                f"@keyframes {name}{{0%,{share:.2f}%{{opacity:0}}"
                f"{share + 0.01:.2f}%,100%{{opacity:1}}}}"
            )
            body.append(
                f'<text x="{x + PAD}" y="{y + BAR + PAD + row * LINE + 6}" fill="{COLOURS[kind]}"'
                f' style="animation-name:{name}">{escape(text)}</text>'
            )

    upper = pane_height(len(top.lines))
    lower = pane_height(max(len(left.lines), len(right.lines)))
    half = (WIDTH - 3 * 8) // 2
    height = upper + lower + 3 * 8
    place(top, 8, 8, WIDTH - 16, upper)
    place(left, 8, upper + 16, half, lower)
    place(right, half + 16, upper + 16, half, lower)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}">',
            "<title>Two whois clients share one fetch, and the next request is answered"
            " from the cache</title>",
            "<style>",
            f"text{{font:{SIZE}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
            f"white-space:pre;animation:{total:.2f}s linear infinite}}",
            ".title{fill:#6e7681;animation:none}",
            "@media (prefers-reduced-motion:reduce){text{animation:none}}",
            *style,
            "</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#30363d" rx="8"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: docs/demo.py target/release/poetry")
    # POEM_* variables would change what the recorded commands do.
    for name in [name for name in os.environ if name.startswith("POEM_")]:
        del os.environ[name]
    picture = draw(record(os.path.abspath(sys.argv[1])))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.svg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
