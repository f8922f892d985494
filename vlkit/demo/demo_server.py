"""Serves the page: on this machine alone unless told otherwise, and with nothing from or for any other host."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlkit.errors import MissingPackage, VlkitError

if TYPE_CHECKING:
    from vlkit.demo.room import Room

LOCAL = "127.0.0.1"
PORT = 7860
MOST_MB = 50
_ENDS_IN = 5.0  # seconds for connections that are open
# What the page may load and send: its own host alone; gradio styles elements and starts workers from the page itself.
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
Scope = dict[str, Any]
Messages = Callable[..., Awaitable[Any]]


def require_gradio() -> None:
    """Refuses to go on without gradio, before anything slow is done.

    Raises:
        MissingPackage: It is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MissingPackage("gradio", purpose="the demo", extra="demo")


def listen(host: str, port: int) -> socket.socket:
    """A socket on which visitors will be heard; port 0 takes any that is free.

    Raises:
        VlkitError: There is no such host here, the port is taken or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise VlkitError(f"--host {host!r} is no address of this machine; give {LOCAL}, or 0.0.0.0 for all") from None
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise VlkitError(
            f"cannot listen at port {port} of {host}: {(error.strerror or str(error)).lower()}; give another --port, "
            f"or --port 0 for any that is free"
        ) from None
    return opened


def address_of(opened: socket.socket) -> str:
    """What to open in a browser."""
    host, port = opened.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


@contextmanager
def quiet_gradio() -> Iterator[None]:
    """No telemetry, nothing shared, and uploads in a folder that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="vlkit-demo-") as uploads:
        wanted = {**_QUIET, "GRADIO_TEMP_DIR": uploads}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def serve(room: Room, opened: socket.socket, *, most_mb: int = MOST_MB, ready: Callable[[str], None]) -> None:
    """Serves the page until the process is interrupted; ``ready`` is told its address once it can be opened.

    Raises:
        VlkitError: A model can do nothing that there is a tab for.
    """
    import uvicorn

    settings = uvicorn.Config(
        _app(room, most_mb=most_mb), log_level="critical", access_log=False, timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(settings)
    # in a thread, signals are heard as in any other command, and not by uvicorn
    thread = threading.Thread(target=_run, args=(server, opened), name="vlkit-demo", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            thread.join(0.05)
        if server.started:
            ready(address_of(opened))
        while thread.is_alive():
            thread.join(0.5)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(_ENDS_IN)
        opened.close()


def _run(server: Any, opened: socket.socket) -> None:
    try:
        server.run(sockets=[opened])
    except BaseException:  # on a busy machine the socket may be closed before the server has ended
        if not server.should_exit:
            raise


def _app(room: Room, *, most_mb: int) -> Any:
    import gradio
    from fastapi import FastAPI

    from vlkit.demo.demo_page import STYLE, build_page, theme

    hidden: Any = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = gradio.mount_gradio_app(
        FastAPI(**hidden), build_page(room), "/", app_kwargs=hidden, theme=theme(), css_paths=[STYLE], footer_links=[],
        max_file_size=f"{most_mb}mb", show_error=False, run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False,
    )  # fmt: skip
    return _Guarded(app)


class _Guarded:
    """An app whose every answer tells browsers to load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Messages, send: Messages) -> None:
        async def sent(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, sent)
