import asyncio

from agents import OpenAIResponsesModel, function_tool


async def agents():
    """Ask all in one event loop, since connections belong to theirs, with a client of its own."""
    own = AsyncOpenAI(base_url=client.base_url, api_key="none")
    both = [ask("auto", openai_client=own) for ask in (type(model), OpenAIResponsesModel)]
    for kind in sys.argv[1:]:
        got = [await KINDS[kind](each) for each in both]
        print(json.dumps({"kind": kind, "got": got[0]}))


async def text(model):
    return (await Runner.run(Agent(name="punch", model=model), QUESTION)).final_output


async def stream(model):
    made = Runner.run_streamed(Agent(name="punch", model=model), QUESTION)
    events = [event.data async for event in made.stream_events() if hasattr(event, "data")]
    return [event.delta for event in events if event.type == "response.output_text.delta"]


async def tools(model):
    settings = ModelSettings(parallel_tool_calls=False)
    able = Agent(name="p", model=model, tools=[function_tool(add)], model_settings=settings)
    made = await Runner.run(able, USE_ADD)
    call = made.new_items[0].raw_item
    history = [*made.to_input_list(), {"role": "user", "content": QUESTION}]
    then = (await Runner.run(Agent(name="punch", model=model), history)).final_output
    return {"name": call.name, "arguments": json.loads(call.arguments), "then": then}


async def structured(model):
    made = await Runner.run(Agent(name="p", model=model, output_type=Person), NAME_A_PERSON)
    return made.final_output.model_dump()


KINDS = {"text": text, "stream": stream, "tools": tools, "structured": structured}
asyncio.run(agents())
