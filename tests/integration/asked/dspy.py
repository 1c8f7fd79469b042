import asyncio


class ToPerson(dspy.Signature):
    """Name a person."""

    hint: str = dspy.InputField()
    person: Person = dspy.OutputField()


class ToCalls(dspy.Signature):
    """Call tools."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


async def stream():
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
    # Another question than before: dspy keeps its answers.
    parts = [part async for part in program(question=USE_ADD)]
    return [part.chunk for part in parts if hasattr(part, "chunk")]


def tools():
    call = dspy.Predict(ToCalls)(question=USE_ADD, tools=[dspy.Tool(add)]).calls.tool_calls[0]
    return {"name": call.name, "arguments": call.args}


say(
    text=lambda: lm(QUESTION)[0],
    stream=lambda: asyncio.run(stream()),
    tools=tools,
    structured=lambda: dspy.Predict(ToPerson)(hint=NAME_A_PERSON).person.model_dump(),
)
