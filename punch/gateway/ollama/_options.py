"""How to choose tokens, and hints about machines, as Ollama's clients say both.

Ollama has them under ``options``, and passes over those that some clients write beside it. Here
they are meant: the settings count in both places, and hints are taken.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from ..bodies import MAX_SEED, Body, Refused, Taken, Text, text_or_list, within

# How far back llama.cpp looks for tokens that penalties are for, unless it is told otherwise.
USUAL_LOOK_BACK = 64

_MACHINE = Taken("a hint about the machine, and each listener knows its own")
_WITH_MIROSTAT = Taken("it counts with mirostat only")
_NO_TOKENS = Taken("an embedding chooses no tokens")


Texts = Annotated[
    Text | Annotated[list[str], within("stop"), Tag("~list")],
    Discriminator(text_or_list),
]


class Settings(Body):
    """How to choose tokens."""

    temperature: Annotated[float | None, within("temperature")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    # To llama.cpp every number below 1 means all tokens; to peers 0 does.
    top_k: Annotated[int | None, within("top_k", ge=-1)] = None
    min_p: Annotated[float | None, within("min_p")] = None
    repeat_penalty: Annotated[float | None, within("repeat_penalty")] = None
    presence_penalty: Annotated[float | None, within("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, within("frequency_penalty")] = None
    # -1 stands for any.
    seed: Annotated[int | None, within("seed", ge=-1, le=MAX_SEED)] = None
    stop: Texts | None = None

    @property
    def max_tokens_said(self) -> int | None:
        """The longest answer, as far as it is said here."""
        return None

    def chosen(self) -> dict[str, Any]:
        """What is said here, in the words between peers."""
        found: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
        }
        found["max_tokens"] = self.max_tokens_said
        if self.top_k is not None:
            found["top_k"] = max(0, self.top_k)
        if self.seed is not None and self.seed >= 0:
            found["seed"] = self.seed
        if self.stop is not None:
            # An empty text alone ends no answer.
            given = [self.stop] if isinstance(self.stop, str) and self.stop else self.stop
            found["stop"] = tuple(given)
        return {name: value for name, value in found.items() if value is not None}


class Hints(Body):
    """The options that say how a machine is to run a model."""

    num_ctx: Annotated[
        Any,
        Taken("a listener has the context that it was started with; what does not fit is refused"),
    ] = None
    num_keep: Annotated[Any, Taken("no context is ever shifted, so all of it is kept")] = None
    numa: Annotated[Any, _MACHINE] = None
    num_batch: Annotated[Any, _MACHINE] = None
    num_gqa: Annotated[Any, _MACHINE] = None
    num_gpu: Annotated[Any, _MACHINE] = None
    main_gpu: Annotated[Any, _MACHINE] = None
    num_thread: Annotated[Any, _MACHINE] = None
    low_vram: Annotated[Any, _MACHINE] = None
    f16_kv: Annotated[Any, _MACHINE] = None
    logits_all: Annotated[Any, _MACHINE] = None
    vocab_only: Annotated[Any, _MACHINE] = None
    use_mmap: Annotated[Any, _MACHINE] = None
    use_mlock: Annotated[Any, _MACHINE] = None
    embedding_only: Annotated[Any, _MACHINE] = None
    draft_num_predict: Annotated[Any, _MACHINE] = None


class Samplers(Body):
    """Further ways to choose tokens, which may only be turned off."""

    mirostat: Annotated[
        Any, Refused("no peer is asked to sample by it; send 0, or leave it out", nothing=(0,))
    ] = None
    mirostat_tau: Annotated[Any, _WITH_MIROSTAT] = None
    mirostat_eta: Annotated[Any, _WITH_MIROSTAT] = None
    tfs_z: Annotated[
        Any, Refused("no engine samples by it any more; send 1, or leave it out", nothing=(1,))
    ] = None
    typical_p: Annotated[
        Any, Refused("no peer is asked to sample by it; send 1, or leave it out", nothing=(1,))
    ] = None
    penalize_newline: Annotated[Any, Taken("no engine knows it any more")] = None


class Options(Settings, Hints, Samplers):
    """The ``options`` of a question."""

    # -1 and -2 stand for no limit.
    num_predict: Annotated[int | None, within("max_tokens", ge=-2)] = None
    repeat_last_n: int | None = Field(
        default=None,
        ge=-1,
        description=f"{USUAL_LOOK_BACK}; 0 for no penalty; any other where there is no penalty.",
    )

    @field_validator("repeat_last_n")
    @classmethod
    def _looks_back_as_peers_do(cls, value: int | None, info: ValidationInfo) -> int | None:
        # The penalties stand before it, so they are known here.
        said = info.data
        penalises = said.get("repeat_penalty") not in (None, 1) or any(
            said.get(name) not in (None, 0) for name in ("presence_penalty", "frequency_penalty")
        )
        if penalises and value not in (None, 0, USUAL_LOOK_BACK):
            raise ValueError(
                f"it is {value}, and peers look back {USUAL_LOOK_BACK} tokens for those that a "
                "penalty is for: leave it out, or send 0 for no penalty"
            )
        return value

    @property
    def max_tokens_said(self) -> int | None:
        """The longest answer; `None` for no limit."""
        return self.num_predict if self.num_predict and self.num_predict > 0 else None

    def chosen(self) -> dict[str, Any]:
        """What is said here; to look back no token is to have no penalty."""
        found = super().chosen()
        if self.repeat_last_n == 0:
            found |= {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
        return found


class EmbedOptions(Hints):
    """The ``options`` of texts to embed: clients send the same ones with every request."""

    temperature: Annotated[Any, _NO_TOKENS] = None
    top_p: Annotated[Any, _NO_TOKENS] = None
    top_k: Annotated[Any, _NO_TOKENS] = None
    min_p: Annotated[Any, _NO_TOKENS] = None
    repeat_penalty: Annotated[Any, _NO_TOKENS] = None
    presence_penalty: Annotated[Any, _NO_TOKENS] = None
    frequency_penalty: Annotated[Any, _NO_TOKENS] = None
    seed: Annotated[Any, _NO_TOKENS] = None
    stop: Annotated[Any, _NO_TOKENS] = None
    num_predict: Annotated[Any, _NO_TOKENS] = None
    repeat_last_n: Annotated[Any, _NO_TOKENS] = None
    mirostat: Annotated[Any, _NO_TOKENS] = None
    mirostat_tau: Annotated[Any, _NO_TOKENS] = None
    mirostat_eta: Annotated[Any, _NO_TOKENS] = None
    tfs_z: Annotated[Any, _NO_TOKENS] = None
    typical_p: Annotated[Any, _NO_TOKENS] = None
    penalize_newline: Annotated[Any, _NO_TOKENS] = None
