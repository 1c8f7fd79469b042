SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
ADD = {"name": "add", "input_schema": SCHEMA | {"required": ["a", "b"]}}


def asked(said, **more):
    return client.messages.create(model="auto", max_tokens=200, messages=said, **more)


def stream():
    said = [{"role": "user", "content": QUESTION}]
    with client.messages.stream(model="auto", max_tokens=32, messages=said) as parts:
        return list(parts.text_stream)


def tools():
    said = [{"role": "user", "content": USE_ADD}]
    message = asked(said, tools=[ADD])
    (call,) = [block for block in message.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "3"}
    said += [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    return {
        "name": call.name,
        "arguments": call.input,
        "then": asked(said, tools=[ADD]).content[0].text,
    }


def structured():
    said = [{"role": "user", "content": NAME_A_PERSON}]
    made = client.messages.parse(model="auto", max_tokens=200, messages=said, output_format=Person)
    return made.parsed_output.model_dump()


say(
    text=lambda: asked([{"role": "user", "content": QUESTION}]).content[0].text,
    stream=stream,
    tools=tools,
    structured=structured,
)
