"""A page that shows a shard in H5Web, built from the sources in ``h5web/`` and served on 127.0.0.1.

npm fetches H5Web once; the page is kept in the user's cache folder under a digest of its sources.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SOURCES = Path(__file__).parent / "h5web"
PAGE_FILES = ("index.html", "page.js", "page.css")
INSTALL = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")
BUNDLE = ("node_modules/.bin/esbuild", "page.jsx", "--bundle", "--minify", "--format=esm", "--jsx=automatic")
INSTALL_LIMIT_S = 400
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")
"""What npm prints when no registry can be reached; every other failure is one of the page's sources."""


class PageUnavailableError(Exception):
    """The page cannot be made on this machine; the message says why."""


def built_page() -> Path:
    """Folder of the page's files; PageUnavailableError where npm or the network is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-aware-wsol"
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    digest.update("\0".join(INSTALL + BUNDLE).encode())
    page = cache / f"h5web-{digest.hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "h5web.lock").open("w") as lock:
        # Two test processes that start together would install the same 200 MB twice.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not page.is_dir():
            _build(page)
    return page


def _build(page: Path) -> None:
    if shutil.which("npm") is None:
        raise PageUnavailableError("npm is not installed, which fetches H5Web")
    with tempfile.TemporaryDirectory(dir=page.parent) as name:
        work = Path(name)
        shutil.copytree(SOURCES, work, dirs_exist_ok=True)
        installed = subprocess.run(INSTALL, cwd=work, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        if installed.returncode:
            if any(word in installed.stderr for word in NO_NETWORK):
                raise PageUnavailableError("npm reaches no registry")
            raise RuntimeError(f"{' '.join(INSTALL)} in {SOURCES}:\n{installed.stderr}")
        made = work / "made"
        subprocess.run([*BUNDLE, "--log-level=error", "--outfile=made/page.js"], cwd=work, check=True)
        shutil.copy(work / "index.html", made)
        made.rename(page)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(page: Path, *, shard: Path, folder: Path) -> Iterator[str]:
    """URL of the page with ``shard``, while the context lasts; ``folder`` is an empty one to serve from."""
    for name in PAGE_FILES:
        shutil.copy(page / name, folder)
    shutil.copy(shard, folder / "shard.h5")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
