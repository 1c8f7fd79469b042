"""Backend `openai`: uses a server that is not ours and speaks OpenAI's HTTP interface.

Decides which of the server's models are offered, and with which features. The server is neither
started nor stopped, nor watched: the vigil is for engines of our own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs

from ...capability import Gpu, ModelOffer
from ...exceptions import BackendCrashed, BackendError, ConfigurationError, PunchError
from ...wire import CommandRequest
from .._base import Emit, Generation, Loading
from ._address import read_server
from ._client import HttpClient, open_http_client
from ._completions import Dialect
from ._probes import probe_embeddings, probe_tools
from ._written_tools import ask_in_writing, has_tools

# A server has its list of models in memory; one that needs longer than this is not there.
_LIST_SECONDS = 15.0

# More models than any server has; it bounds our capability vector.
_MAX_MODELS = 256

_OWNERS: dict[str, Dialect] = {"llamacpp": "llama_cpp", "vllm": "vllm"}


class OpenAIBackend:
    """Sends requests to a server that is not ours; a `Backend`. Made by `open_openai`."""

    def __init__(
        self,
        client: HttpClient,
        *,
        offers: tuple[ModelOffer, ...],
        dialect: Dialect,
        slots: int,
        setting: str,
        writes_tools: bool = False,
    ) -> None:
        self._writes_tools = writes_tools
        self._client = client
        self._offers = offers
        self._dialect = dialect
        self._slots = slots
        self._setting = setting

    @property
    def name(self) -> str:
        """The word that selects this backend."""
        return "openai"

    @property
    def simulated(self) -> bool:
        """False: that a model answers is the server's word, which cannot be verified here."""
        return False

    @property
    def slots(self) -> int:
        """Requests at a time, as it was set; the server's own limit is unknown."""
        return self._slots

    @property
    def threads(self) -> int | None:
        """`None`: the server does not say."""
        return None

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The models that the server listed when this backend was opened."""
        return self._offers

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Empty: the server does not say."""
        return ()

    async def ready(self, loading: Loading) -> None:
        """Return at once: a server that is not ready says so when it is asked."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request* through the server.

        Raises:
          PunchError: as `HttpClient.generate`.

        """
        model = request.model or self._offers[0].name
        ask = partial(self._client.generate, model=model, dialect=self._dialect)
        try:
            if self._writes_tools and has_tools(request):
                return await ask_in_writing(request, emit, ask)
            return await ask(request, emit)
        except BackendCrashed as error:
            raise BackendCrashed(f"{error}; is the server of {self._setting} running?") from error


def read_models(value: Any) -> tuple[tuple[ModelOffer, ...], Dialect]:
    """The models in a body of ``/v1/models``, and the kind of server that lists them.

    The kind is told by ``owned_by`` of the first model, which llama.cpp and vLLM fill in with
    their own names.

    Raises:
      ValueError: if *value* is no such list.

    """
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise ValueError("it has no list under 'data'")
    rows = [row for row in value["data"] if isinstance(row, dict) and _text(row.get("id"))]
    owner = str(rows[0].get("owned_by")) if rows else ""
    return tuple(_offer(row) for row in rows[:_MAX_MODELS]), _OWNERS.get(owner, "other")


def _offer(row: dict[str, Any]) -> ModelOffer:
    meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
    return ModelOffer(
        name=row["id"],
        # llama.cpp says what one slot has (`n_ctx`), older builds only what the model was
        # trained for; vLLM has a name of its own.
        context_tokens=_positive(meta.get("n_ctx"))
        or _positive(meta.get("n_ctx_train"))
        or _positive(row.get("max_model_len")),
        parameters=_positive(meta.get("n_params")),
        size_bytes=_positive(meta.get("size")),
        quantization=_text(meta.get("ftype")),
    )


def _with_features(offer: ModelOffer, dialect: Dialect) -> ModelOffer:
    """*offer* with what servers of this kind can do with every model.

    Nothing is claimed for an unknown kind: many servers ignore what they do not know without a
    word, and the answer would not be what was asked for.
    """
    if dialect == "other":
        return offer
    return attrs.evolve(offer, features=offer.features | {"tools", "json_schema", "logprobs"})


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


@asynccontextmanager
async def open_openai(
    *,
    url: str,
    api_key: str | None = None,
    model: str | None = None,
    slots: int = 4,
    url_setting: str = "PUNCH_OPENAI_URL",
    key_setting: str = "PUNCH_OPENAI_KEY",
) -> AsyncIterator[OpenAIBackend]:
    """Use the server at *url*, with every model it lists or with *model* only.

    Args:
      url: Its address, with or without ``/v1``.
      api_key: Sent as a bearer token. A user and a password in *url* are sent instead.
      model: Offer this one only.
      slots: Requests at a time.
      url_setting: Name of the setting that *url* comes from, for error texts.
      key_setting: Name of the setting that *api_key* comes from.

    Raises:
      ConfigurationError: if the address or the key is wrong, or the model is not there.
      BackendCrashed: if no server answers at *url*.

    """
    place = read_server(url, api_key, url_setting=url_setting, key_setting=key_setting)
    async with open_http_client(
        url=place.url,
        slots=slots,
        authorization=place.authorization,
        key_setting=key_setting,
        secrets=place.secrets,
    ) as client:
        said = f"{url_setting}={place.url}"
        offers, dialect = await _list(client, said=said, url_setting=url_setting)
        if model is not None:
            listed = ", ".join(offer.name for offer in offers)
            offers = tuple(offer for offer in offers if offer.name == model)
            if not offers:
                raise ConfigurationError(
                    f"{said} does not serve the model {model!r}; it serves: {listed}"
                )
        if not offers:
            raise ConfigurationError(f"{said} serves no model; load one there first")
        is_llama = dialect == "llama_cpp"
        writes_tools = is_llama and not await probe_tools(client)
        if is_llama and await probe_embeddings(client):
            offers = tuple(
                attrs.evolve(offer, features=offer.features | {"embed"}) for offer in offers
            )
        offers = tuple(_with_features(offer, dialect) for offer in offers)
        yield OpenAIBackend(
            client, offers=offers, dialect=dialect, slots=slots, setting=url_setting,
            writes_tools=writes_tools,
        )  # fmt: skip


async def _list(
    client: HttpClient, *, said: str, url_setting: str
) -> tuple[tuple[ModelOffer, ...], Dialect]:
    try:
        return read_models(await client.get_json("/v1/models", timeout=_LIST_SECONDS))
    except BackendCrashed as error:
        raise BackendCrashed(
            f"{said}: {error}. Start that server, or set {url_setting} to another"
        ) from error
    except (BackendError, ValueError, PunchError) as error:
        raise ConfigurationError(
            f"{said} does not list its models at /v1/models: {error}"
        ) from error
