"""Which of llama.cpp's own server tests a gateway in front of any engine cannot pass, and why.

Each names a field, a path, a word, a rule or an option that is llama.cpp's own, or what one model
says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_COMPLETION = "`/completion`: llama.cpp's own path, with its own fields"
_VERBOSE = "`__verbose`: llama.cpp's own field"
_TIMINGS = "`timings`: llama.cpp's own field"
_BUILD = "`system_fingerprint` must be the number of llama.cpp's build"
_COUNTS = "counts the tokens of one model's vocabulary"
_TOKENS = "a text as the numbers of one model's tokens"
_OBJECTS = "texts to embed in objects: llama.cpp's own form"
_POOLING = "`--pooling none`: an option of llama.cpp's command line"
_PICTURES = "a status of 500 with llama.cpp's own words for a picture; ours is a 400"
_FIRST = "the first chunk's `content` must be null, llama.cpp's own way; OpenAI's is an empty text"
_TEN = "ten tokens must do: one model's; in how many pieces ours spells the word is chance"
_SIX = "six tokens must do: one model's; ours spends two of them on a fence around its JSON"

SLOW = "needs one of the larger models that their tests download"

# Function, or function and parameters, of a file to the reason.
EXCLUDED: Mapping[str, Mapping[str, str]] = {
    "test_chat_completion.py": {
        "test_chat_completion": f"{_COUNTS}; {_BUILD}",
        "test_chat_completion_cached_tokens": _COUNTS,
        "test_chat_completion_stream": f"{_COUNTS}; {_BUILD}",
        "test_chat_completion_with_openai_library": _BUILD,
        "test_chat_template": _VERBOSE,
        "test_chat_template_assistant_prefill": _VERBOSE,
        "test_chat_template_continue_final_message_vllm_compat": _VERBOSE,
        "test_apply_chat_template": "`/apply-template`: llama.cpp's own path",
        'test_completion_with_response_format[response_format0-6-"42"]': _SIX,
        'test_completion_with_response_format[response_format2-10-"foooooo"]': _TEN,
        "test_completion_with_json_schema": _SIX,
        "test_completion_with_grammar": "`grammar`: llama.cpp's own field",
        "test_invalid_chat_completion_req[messages7]": (
            "two answers at the end, which OpenAI's API takes: a rule of llama.cpp's own"
        ),
        "test_chat_completion_with_timings_per_token": _TIMINGS,
        "test_logprobs_stream": _FIRST,
        "test_logit_bias": "`/tokenize`: llama.cpp's own path",
        "test_context_size_exceeded": "`exceed_context_size_error`: llama.cpp's own error",
        "test_context_size_exceeded_stream": "`exceed_context_size_error`: llama.cpp's own error",
        "test_return_progress": "`return_progress`: llama.cpp's own field",
        "test_chat_completions_token_count": "`.../input_tokens`: llama.cpp's own path",
        "test_verbose_debug": _VERBOSE,
    },
    "test_completion.py": {
        "test_completion": _COMPLETION,
        "test_completion_stream": _COMPLETION,
        "test_completion_stream_vs_non_stream": _COMPLETION,
        "test_completion_with_openai_library": _BUILD,
        "test_consistent_result_same_seed": _COMPLETION,
        "test_different_result_different_seed": _COMPLETION,
        "test_consistent_result_different_batch_size": _COMPLETION,
        "test_cache_vs_nocache_prompt": "llama.cpp leaves it out itself",
        "test_nocache_long_input_prompt": _COMPLETION,
        "test_json_prompt_no_mtmd": _COMPLETION,
        "test_json_prompt_mtm_error_when_not_supported": _COMPLETION,
        "test_completion_with_tokens_input": _COMPLETION,
        "test_completion_parallel_slots": _COMPLETION,
        "test_completion_unified": _COMPLETION,
        "test_completion_response_fields": _COMPLETION,
        "test_n_probs": _COMPLETION,
        "test_n_probs_stream": _COMPLETION,
        "test_n_probs_post_sampling": _COMPLETION,
        "test_n_probs_post_backend_sampling": _COMPLETION,
        "test_logit_bias": _COMPLETION,
        "test_cancel_request": _COMPLETION,
        "test_completion_prompt_cache": _COMPLETION,
    },
    "test_compat_oai_responses.py": {
        "test_responses_stream_with_llama_telemetry": _TIMINGS,
    },
    "test_embedding.py": {
        "test_embedding_mixed_input[-False]": "an empty text, which OpenAI's API refuses, too",
        "test_embedding_mixed_input[input2-False]": _TOKENS,
        "test_embedding_mixed_input[input3-False]": _TOKENS,
        "test_embedding_mixed_input[input5-True]": _TOKENS,
        "test_embedding_mixed_input[input6-True]": _TOKENS,
        "test_embedding_mixed_input[input7-True]": _TOKENS,
        "test_embedding_mixed_input[input8-False]": _OBJECTS,
        "test_embedding_mixed_input[input9-False]": _OBJECTS,
        "test_embedding_mixed_input[input10-True]": _OBJECTS,
        "test_embedding_content_text_same_as_string": _OBJECTS,
        "test_embedding_pooling_none": _POOLING,
        "test_embedding_pooling_none_oai": _POOLING,
        "test_embedding_usage_single": _COUNTS,
        "test_embedding_usage_multiple": _COUNTS,
    },
    "test_compat_anthropic.py": {
        "test_anthropic_tool_result_with_image": _PICTURES,
        "test_anthropic_vision_format_accepted": _PICTURES,
        "test_anthropic_vision_base64_with_multimodal_model": "downloads a model and a picture",
        "test_anthropic_empty_messages": "no messages at all, which Anthropic's API refuses, too",
        "test_anthropic_thinking_history_in_count_tokens": (
            "`--chat-template-file`: an option of llama.cpp's command line, and a file that the "
            "archive has not"
        ),
        "test_anthropic_thinking_history_in_template": "`/apply-template`: llama.cpp's own path",
    },
    "test_tool_call.py": {
        f"test_completion_without_tool_call_fast[{each}-CompletionMode.STREAMED]": _FIRST
        for each in (
            "meta-llama-Llama-3.3-70B-Instruct-128-tools0-None",
            "meta-llama-Llama-3.3-70B-Instruct-128-tools1-None",
            "meta-llama-Llama-3.3-70B-Instruct-128-tools2-none",
        )
    },
}

# They are about shapes and want a word of their model's in the text as well: any text will do.
ANY_WORDS = frozenset(
    {
        "test_compat_oai_responses.py::test_responses_with_openai_library",
        "test_compat_oai_responses.py::test_responses_stream_with_openai_library",
        "test_completion.py::test_completion_stream_with_openai_library",
    }
)


def _named(test: str) -> tuple[str, str]:
    """File and function with its parameters."""
    path, _, name = test.partition("::")
    file = path.rpartition("/")[2]
    return file, name


def reason(test: str, *, is_slow: bool) -> str | None:
    """Why *test*, as pytest names it, is left out; `None` if it is not.

    Args:
      test: Its file, function and parameters.
      is_slow: Whether it is marked so, which in their tests are those with a model of their own.

    """
    if is_slow:
        return SLOW
    file, name = _named(test)
    of_file = EXCLUDED.get(file, {})
    return of_file.get(name) or of_file.get(name.partition("[")[0])


def any_words(test: str) -> bool:
    """Whether any text will do in *test*."""
    return "::".join(_named(test)) in ANY_WORDS


def unknown(tests: Iterable[str]) -> list[str]:
    """What the table names and is none of *tests*."""
    names = {_named(test) for test in tests}
    names |= {(file, name.partition("[")[0]) for file, name in names}
    listed = [(file, name) for file, row in EXCLUDED.items() for name in row]
    listed += [(file, name) for file, _, name in (each.partition("::") for each in ANY_WORDS)]
    return ["::".join(each) for each in listed if each not in names]
