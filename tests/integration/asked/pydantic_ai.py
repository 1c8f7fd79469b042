import asyncio

from pydantic_ai import NativeOutput


async def stream():
    async with agent.run_stream(QUESTION) as made:
        return [part async for part in made.stream_text(delta=True, debounce_by=None)]


def tools():
    made = Agent(model, tools=[add]).run_sync(USE_ADD)
    call = made.all_messages()[1].parts[0]
    return {"name": call.tool_name, "arguments": call.args_as_dict(), "then": made.output}


def structured():
    for kind in (NativeOutput(Person), Person):
        person = Agent(model, output_type=kind).run_sync(NAME_A_PERSON).output
    return person.model_dump()


say(
    text=lambda: agent.run_sync(QUESTION).output,
    stream=lambda: asyncio.run(stream()),
    tools=tools,
    structured=structured,
)
