"""Makes the settings of the HTTP half of a gateway from those of the program."""

from __future__ import annotations

import attrs

from ...gateway import GatewaySettings as HttpSettings
from ...gateway import Limits
from ...settings import GatewaySettings


def http_settings(settings: GatewaySettings, *, share: int = 1) -> HttpSettings:
    """The settings of the HTTP half of the program, or of one of *share* processes of it."""
    limits = Limits()
    return HttpSettings(
        host=settings.host,
        port=settings.port,
        ollama_port=settings.ollama_port,
        open_to_all=settings.open_to_all,
        strict=settings.strict.is_on,
        timeout=settings.timeout,
        store_responses=settings.store_responses,
        any_name=settings.any_name,
        origins=settings.allow_origin,
        limits=attrs.evolve(
            limits,
            body=settings.body_limit,
            bodies=limits.bodies // share,
            connections=limits.connections // share,
        ),
    )
