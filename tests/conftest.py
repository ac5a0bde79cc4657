"What the tests share: the clone, a copy of it to change at will, its notebooks, and two servers that can be asked."

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spatial_nb import core
from spatial_nb.chat import OpenAI

ROOT = Path(__file__).resolve().parents[1]


def notebooks(folder: str) -> list[Path]:  # folder below nbs/
    "Paths of the notebooks in `folder`, sorted."
    return sorted((ROOT / "nbs" / folder).glob("*.ipynb"))


def cells(path: Path, kind: str | None = None) -> list[dict]:
    "Cells of the notebook at `path`, all or those of one `kind`; sources joined to one string."
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [dict(c, source="".join(c["source"])) for c in found if kind in (None, c["cell_type"])]


def copy_tree(to: Path) -> Path:  # must not exist
    "Copy the working tree: what git tracks or would track, without what it ignores."
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # a file deleted but not yet committed is listed as well
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


@pytest.fixture
def copy(tmp_path) -> Path:
    "A copy of the clone that a test may change."
    return copy_tree(tmp_path / "copy")


# --- a server that misbehaves as it is told ------------------------------------------------------------------------

KEY = "sk-proj-abcdefghijklmnop0123456789"


def body(text="fine", finish="stop", **more):
    usage = dict(prompt_tokens=7, completion_tokens=3, total_tokens=10)
    message = dict(role="assistant", content=text, **more)
    choice = dict(index=0, message=message, finish_reason=finish)
    return json.dumps(
        dict(id="x", object="chat.completion", created=0, model="m", choices=[choice], usage=usage)
    ).encode()


class Server(ThreadingHTTPServer):
    "Answers with what `plan` says (or a function of the request), then with the last of it; keeps what was asked."

    daemon_threads = True

    def __init__(self, plan):
        self.plan, self.seen, self.flying, self.most = list(plan), [], 0, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server, asked = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append((asked, self.headers.get("Authorization")))
            step = server.plan[min(len(server.seen), len(server.plan)) - 1]
            step = step(asked) if callable(step) else step
            server.flying += 1
            server.most = max(server.most, server.flying)
        try:
            self.reply(step)
        finally:
            with server.lock:
                server.flying -= 1

    def reply(self, step):
        if step == "cut":  # the connection ends in the middle of the body
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
            return
        if step == "hang":
            time.sleep(0.8)
        status, headers, said = step if isinstance(step, tuple) else (200, {}, body() if step == "hang" else step)
        self.send_response(status)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(said))}).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(said)
        except OSError:  # who asked has gone
            pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = []

    def start(*plan, **how):
        made.append(Server(plan))
        return made[-1], OpenAI("m", made[-1].url, **dict(wait=0.01, timeout=0.3) | how)

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def error(status, message="busy", **headers):
    return status, headers, json.dumps({"error": {"message": message, "type": "x"}}).encode()


# --- the shipped model behind `transformers serve` ----------------------------------------------------------------

# `transformers serve ...`, and two things more. It decodes pictures with torchvision's compiled part, which does not
# fit every torch. And it ends when its standard input does: with the tests, however they end.
LAUNCH = """
import io, os, sys, threading
import numpy, torch
from PIL import Image
from spatial_nb import models
import torchvision.io

threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
if not models._FITS:
    def decode_image(data, mode=None, **how):
        picture = Image.open(io.BytesIO(data.numpy().tobytes()) if torch.is_tensor(data) else data).convert("RGB")
        return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
    torchvision.io.decode_image = decode_image

from transformers.cli.transformers import app
app(["serve", *sys.argv[1:]])
"""


class Served:
    "The model in a process of its own, which can be killed and started again at the same address."

    def __init__(self, folder, model="tiny-vlm"):
        self.folder, self.model, self.process, self.said = folder, model, None, folder / "said.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self, seconds=120):
        at = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        with open(self.said, "w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, self.model, *at],
                cwd=self.folder,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            with socket.socket() as s:  # it listens only when the model is loaded
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"no server after {seconds} s, it said: {self.said.read_text()[-600:]}")

    def kill(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ask_with(self, **how) -> OpenAI:
        return OpenAI(self.model, f"http://127.0.0.1:{self.port}/v1", **dict(timeout=60, wait=0.05) | how)

    def requests(self) -> list[str]:
        "Who asked (address and port), answer by answer, since the last start."
        return [line.split()[1] for line in self.said.read_text().splitlines() if '"POST /v1/chat/completions' in line]


@pytest.fixture(scope="session")
def serving(tmp_path_factory):
    "The server, of the shipped weights; the folder says `do_sample` of them, without which no temperature is obeyed."
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name, reason=f"no {name}: pip install '.[serve,chat]'")
    folder = tmp_path_factory.mktemp("serve")
    (folder / "tiny-vlm").mkdir()
    for path in core.shipped("tiny-vlm").iterdir():
        (folder / "tiny-vlm" / path.name).symlink_to(path.resolve())
    config = folder / "tiny-vlm" / "generation_config.json"
    shipped = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps(shipped | dict(do_sample=True, top_k=0)))
    served = Served(folder)
    try:
        yield served.start()
    finally:
        served.kill()


@pytest.fixture
def served(serving, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # a server of one's own wants none
    return serving if serving.process.poll() is None else serving.start()
