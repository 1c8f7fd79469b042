from smolagents import ToolCallingAgent, tool

FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": Person.model_json_schema(), "strict": True},
}


def asked(text):
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def tools():
    assert ToolCallingAgent(tools=[tool(add)], model=model, max_steps=2).run("Use final_answer.")
    made = model.generate(asked(USE_ADD), tools_to_call_from=[tool(add)])
    call = made.tool_calls[0].function
    return {"name": call.name, "arguments": json.loads(call.arguments)}


say(
    text=lambda: model.generate(asked(QUESTION)).content,
    stream=lambda: [part.content or "" for part in model.generate_stream(asked(QUESTION))],
    tools=tools,
    structured=lambda: json.loads(
        model.generate(asked(NAME_A_PERSON), response_format=FORMAT).content
    ),
)
