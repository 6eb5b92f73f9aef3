"""The page's server: Starlette behind uvicorn, on this computer alone unless it is told otherwise; it keeps nothing."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lesion_core.errors import LesionError
from lesion_core.serve.outlines import Correction, Outliner, image_id

PAGE = Path(__file__).parent / "page"
DATA_FILES = ("serve/page",)
LOOPBACK = ("127.0.0.1", "localhost")
MOST_BYTES = 64 << 20  # of one image's file
MOST_WAITING = 32  # requests at a time; one is worked on
BINARY = "application/octet-stream"  # no form of another site sends it without asking
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Guard:
    """Adds ``HEADERS`` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, with_headers)


def make_app(outliner: Outliner, *, hosts: tuple[str, ...] = LOOPBACK, most_bytes: int = MOST_BYTES) -> Starlette:
    """The application: ``GET /`` the page, ``GET /about``, ``POST /outline?name=&correction=`` with an image as body.

    Images are held in memory while they are worked on, one at a time; nothing is written and nothing of them is logged.

    Args:
        hosts: names that a browser may call it by; another name in a request is refused (DNS rebinding).
        most_bytes: of a request's body; more is answered with status 413 before it is read whole.
    """
    working = Lock()

    def answer(name: str, content: bytes, correction: Correction | None) -> dict[str, Any]:
        with working:
            return outliner.outline(name, content, correction)

    async def outline(request: Request) -> Response:
        if request.headers.get("content-type") != BINARY:
            return _refused(415, f"send the image's bytes as {BINARY}")
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > most_bytes:
                return _refused(413, f"the file is over {most_bytes >> 20} MiB")
        try:
            name = image_id(request.query_params.get("name", ""))
            drawn = request.query_params.get("correction")
            correction = None if drawn is None else Correction.read(_json(drawn))
            return JSONResponse(await run_in_threadpool(answer, name, bytes(content), correction))
        except LesionError as error:
            return _refused(422, error.message)

    async def about(_: Request) -> Response:
        return JSONResponse(outliner.about())

    return Starlette(
        routes=[
            Route("/about", about),
            Route("/outline", outline, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(_Guard), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def serve(outliner: Outliner, host: str, port: int) -> None:
    """Answer on ``host`` until it is interrupted. Another host than loopback lets the network in: there is no login."""
    import uvicorn

    hosts = LOOPBACK if host in LOOPBACK else ("*",)
    uvicorn.run(
        make_app(outliner, hosts=hosts), host=host, port=port, limit_concurrency=MOST_WAITING, access_log=False,
        log_level="warning", server_header=False,
    )  # fmt: skip


def _refused(status: int, problem: str) -> Response:
    return JSONResponse({"problem": problem}, status_code=status)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
