"""The forms of the page's answers: data and errors, which no cache keeps and no frame shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

# No script, style, image or connection but our own, and nobody's frame around it. What scripts
# put into the page is text: `innerHTML` and its like are off (Trusted Types).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

NEVER_KEPT = "no-store"


def data_of(data: dict[str, Any], status: int = 200) -> Response:
    """An answer with *data*."""
    return JSONResponse(
        data, status_code=status, headers={**SECURITY_HEADERS, "cache-control": NEVER_KEPT}
    )


def error_of(status: int, message: str) -> Response:
    """An error in Ollama's form, as for every other path under ``/api/``."""
    return data_of({"error": message}, status)
