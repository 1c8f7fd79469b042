"""Fields that say how tokens are chosen, in the words of OpenAI and of servers that speak like it.

Honoured is what a request between peers can say. The rest of what llama-server, vLLM, SGLang and
LM Studio know is named here with its reason, so that a default is taken and a wish is told.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator

from ...wire import Sampling
from ..bodies import MAX_SEED, Body, Refused, Taken, Text, text_or_list, within

_SAMPLER = "peers choose tokens without it; leave it out"
_UNUSED = "it matters only beside a field that is refused"
_TOKENS = "peers have tokenizers of their own, so the number of a token means nothing"
_SCHEDULING = "the listener decides about its memory and its turns"
_SHOWN = "answers do not have it; leave it out"
_SPEED = "a hint for speed"


Stop = Annotated[
    Text | Annotated[list[str], within("stop"), Tag("~list")],
    Discriminator(text_or_list),
]


class EngineBody(Body):
    """What engines know besides, and no request between peers can say."""

    typical_p: Annotated[Any, Refused(_SAMPLER, nothing=(1, 0))] = None
    tfs_z: Annotated[Any, Refused(_SAMPLER, nothing=(1,))] = None
    top_a: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    top_n_sigma: Annotated[Any, Refused(_SAMPLER, nothing=(-1,))] = None
    xtc_probability: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    xtc_threshold: Annotated[Any, Taken(_UNUSED)] = None
    dynatemp_range: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    dynatemp_exponent: Annotated[Any, Taken(_UNUSED)] = None
    mirostat: Annotated[Any, Refused(_SAMPLER, nothing=(0, False))] = None
    mirostat_tau: Annotated[Any, Taken(_UNUSED)] = None
    mirostat_eta: Annotated[Any, Taken(_UNUSED)] = None
    dry_multiplier: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    dry_base: Annotated[Any, Taken(_UNUSED)] = None
    dry_allowed_length: Annotated[Any, Taken(_UNUSED)] = None
    dry_penalty_last_n: Annotated[Any, Taken(_UNUSED)] = None
    dry_sequence_breakers: Annotated[Any, Taken(_UNUSED)] = None
    repeat_last_n: Annotated[Any, Refused(_SAMPLER, nothing=(64,))] = None
    no_repeat_ngram_size: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    length_penalty: Annotated[Any, Refused(_SAMPLER, nothing=(1,))] = None
    early_stopping: Annotated[Any, Refused(_SAMPLER, nothing=(False,))] = None
    use_beam_search: Annotated[Any, Refused(_SAMPLER, nothing=(False,))] = None
    min_tokens: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    ignore_eos: Annotated[Any, Refused(_SAMPLER, nothing=(False,))] = None
    samplers: Annotated[Any, Refused(_SAMPLER)] = None
    min_keep: Annotated[Any, Refused(_SAMPLER, nothing=(0,))] = None
    grammar: Annotated[
        Any, Refused("a peer may run another engine; give a JSON schema in response_format")
    ] = None
    logit_bias: Annotated[Any, Refused(_TOKENS)] = None
    stop_token_ids: Annotated[Any, Refused(f"{_TOKENS}; give texts in stop")] = None
    allowed_token_ids: Annotated[Any, Refused(_TOKENS)] = None
    bad_words: Annotated[Any, Refused(_SAMPLER)] = None
    include_stop_str_in_output: Annotated[
        Any, Refused("the texts of stop are no part of an answer", nothing=(False,))
    ] = None
    skip_special_tokens: Annotated[
        Any, Refused("peers leave special tokens out", nothing=(True,))
    ] = None
    spaces_between_special_tokens: Annotated[Any, Taken("special tokens are left out")] = None
    truncate_prompt_tokens: Annotated[
        Any, Refused("nothing is cut off a prompt; send a shorter one", nothing=(-1,))
    ] = None
    lora: Annotated[Any, Refused("a listener's adapters are not chosen from here")] = None
    n_probs: Annotated[Any, Refused("send logprobs instead", nothing=(0,))] = None
    post_sampling_probs: Annotated[Any, Refused(_SHOWN, nothing=(False,))] = None
    prompt_logprobs: Annotated[Any, Refused(_SHOWN, nothing=(False,))] = None
    return_tokens: Annotated[Any, Refused(_SHOWN, nothing=(False,))] = None
    return_token_ids: Annotated[Any, Refused(_SHOWN, nothing=(False,))] = None
    return_tokens_as_token_ids: Annotated[Any, Refused(_SHOWN, nothing=(False,))] = None
    response_fields: Annotated[Any, Refused(_SHOWN)] = None
    verbose: Annotated[Any, Taken("answers have what they have")] = None
    timings_per_token: Annotated[Any, Taken("times are told under punch, at the end")] = None
    return_progress: Annotated[Any, Taken("a comment of the stream says what is waited for")] = None
    t_max_predict_ms: Annotated[Any, Refused("say punch.timeout, in seconds", nothing=(0, -1))] = (
        None
    )
    n_keep: Annotated[Any, Taken("no context is shifted: what does not fit is refused")] = None
    n_discard: Annotated[Any, Taken("no context is shifted: what does not fit is refused")] = None
    cache_prompt: Annotated[Any, Taken("a hint for caches of prompts")] = None
    id_slot: Annotated[Any, Taken(_SCHEDULING)] = None
    keep_alive: Annotated[Any, Taken(_SCHEDULING)] = None
    ttl: Annotated[Any, Taken(_SCHEDULING)] = None
    priority: Annotated[Any, Taken("punch.priority orders requests")] = None
    draft_model: Annotated[Any, Taken(_SPEED)] = None
    backend_sampling: Annotated[Any, Taken(_SPEED)] = None
    cache_salt: Annotated[Any, Taken("a hint for caches of prompts")] = None
    kv_transfer_params: Annotated[Any, Taken(_SPEED)] = None
    guided_decoding_backend: Annotated[Any, Taken(_SPEED)] = None


class SamplingBody(EngineBody):
    """How the next token is chosen."""

    temperature: Annotated[float | None, within("temperature")] = None
    top_p: Annotated[float | None, within("top_p")] = None
    top_k: Annotated[int | None, within("top_k", ge=-1)] = Field(
        default=None, description="-1 and 0 keep all."
    )
    min_p: Annotated[float | None, within("min_p")] = None
    repeat_penalty: Annotated[float | None, within("repeat_penalty")] = None
    repetition_penalty: Annotated[float | None, within("repeat_penalty")] = Field(
        default=None, description="vLLM's name of `repeat_penalty`."
    )
    presence_penalty: Annotated[float | None, within("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, within("frequency_penalty")] = None
    stop: Stop | None = None
    seed: Annotated[int | None, within("seed", ge=-MAX_SEED - 1, le=MAX_SEED)] = Field(
        default=None, description="-1 is any."
    )

    @field_validator("repetition_penalty")
    @classmethod
    def _one_penalty(cls, value: float | None, info: Any) -> float | None:
        other = info.data.get("repeat_penalty")
        if None not in (value, other) and value != other:
            raise ValueError("it is another name of repeat_penalty, which has another value")
        return value

    def sampling(self, max_tokens: int | None) -> Sampling:
        """How to choose tokens, as peers read it."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        penalty = self.repeat_penalty
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=None if self.top_k is None else max(0, self.top_k),
            min_p=self.min_p,
            repeat_penalty=self.repetition_penalty if penalty is None else penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            # An empty text would end an answer before it has begun; it asks for nothing.
            stop=tuple(filter(None, stops)),
            seed=_seed(self.seed),
        )


def _seed(seed: int | None) -> int | None:
    """A seed as peers have them: no negative ones. To engines -1 is any seed."""
    return None if seed in (None, -1) else seed & MAX_SEED


def shortest(*limits: int | None) -> int | None:
    """The most tokens of an answer, under all of its names; -1 is no limit to engines."""
    return min([limit for limit in limits if limit not in (None, -1)], default=None)
