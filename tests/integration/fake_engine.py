"""A small program that speaks as llama-server does: no model, and as odd as a test wants it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HELP = "--model FNAME\n--ctx-size N\n--port PORT\n-np, --parallel N\n--slots\n"

_CODE = """
import json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

with open(FOLDER + "/calls", "a") as file:
    print(json.dumps(sys.argv), file=file)
if "--help" in sys.argv:
    sys.exit(print(HELP))
if "--version" in sys.argv:
    sys.exit(print("version: 1 (fake)"))
if "--port" not in sys.argv:
    sys.exit()
with open(FOLDER + "/pids", "a") as file:
    print(os.getpid(), file=file)


def given(flag):
    return sys.argv[sys.argv.index(flag) + 1]


context = int(given("--ctx-size")) // int(given("--parallel"))
loaded_at = time.monotonic() + LOAD_SECONDS


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def say(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", len(data))
        self.end_headers()
        self.wfile.write(data)

    def is_loading(self):
        if time.monotonic() < loaded_at:
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            self.say({"error": error}, 503)
            return True
        return False

    def do_GET(self):
        if not self.is_loading():
            self.say([] if self.path == "/slots" else {"data": [{"id": "m"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.is_loading():
            return
        # A tokenizer of bytes.
        text = "".join(each["content"] for each in body.get("messages", ()))
        text += body.get("prompt") or ""
        count = len(text.encode()) + 30
        if count >= context:
            error = {
                "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": count,
                "n_ctx": context, "message": "the request exceeds the available context size",
            }
            self.say({"error": error}, 400)
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        choice = {"index": 0, "delta": {"content": "word"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": count, "completion_tokens": 1}
        timings = {"prompt_n": count, "prompt_ms": 10, "predicted_n": 1, "predicted_ms": 10}
        event = {"choices": [choice], "usage": usage, "timings": timings}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\ndata: [DONE]\\n\\n")
        self.close_connection = True


def load():
    began = time.monotonic()
    while time.monotonic() < loaded_at:
        print("." , end="", file=sys.stderr, flush=True)
        time.sleep(0.1)


threading.Thread(target=load, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(given("--port"))), Handler).serve_forever()
"""


def fake_server(path: Path, *, help_text: str = HELP, load_seconds: float = 0.0) -> Path:
    """A program at *path* that notes its pids and arguments in files of its folder."""
    facts: dict[str, Any] = {
        "FOLDER": str(path.parent),
        "HELP": help_text,
        "LOAD_SECONDS": load_seconds,
    }
    lines = [f"{name} = {value!r}" for name, value in facts.items()]
    return script(path, f"#!{sys.executable} -S\n" + "\n".join(lines) + _CODE)


def script(path: Path, text: str) -> Path:
    """An executable file of *text*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
