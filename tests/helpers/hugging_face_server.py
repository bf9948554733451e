"""A server on this computer that answers as the Hugging Face Hub does, for one model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


@contextmanager
def hub(folder: Path, name: str) -> Iterator[str]:
    """Serve the files of `folder` as the model `name`. Yields the value for HF_ENDPOINT."""

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.split("?")[0]
            files = sorted(file for file in folder.iterdir() if file.is_file())
            if path.startswith(f"/api/models/{name}/tree/"):
                sizes = [(file.name, file.stat().st_size, digest(file.read_bytes())) for file in files]
                self.send_json([{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in sizes])
            elif path.rstrip("/") == f"/api/models/{name}" or path.startswith(f"/api/models/{name}/revision/"):
                siblings = [{"rfilename": file.name} for file in files]
                self.send_json({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []})
            elif path.startswith(f"/{name}/resolve/"):
                body = (folder / path.rpartition("/")[2]).read_bytes()
                self.send(body, {"ETag": f'"{digest(body)}"', "X-Repo-Commit": COMMIT})
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send_json(self, content: object) -> None:
            self.send(json.dumps(content).encode(), {"Content-Type": "application/json"})

        def send(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
