from litellm import completion

ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": ADD | {"required": ["a", "b"]}},
}


def asked(said, **more):
    return completion(model="openai/auto", messages=said, **punch, **more).choices[0].message


def tools():
    said = [{"role": "user", "content": USE_ADD}]
    message = asked(said, tools=[ADD])
    call = message.tool_calls[0]
    said += [message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
    then = asked(said, tools=[ADD]).content
    arguments = json.loads(call.function.arguments)
    return {"name": call.function.name, "arguments": arguments, "then": then}


def structured():
    said = [{"role": "user", "content": NAME_A_PERSON}]
    message = asked(said, response_format=Person)
    said += [message.model_dump(), {"role": "user", "content": "And another."}]
    return json.loads(asked(said, response_format=Person).content)


def stream():
    said = [{"role": "user", "content": QUESTION}]
    parts = completion(model="openai/auto", messages=said, stream=True, **punch)
    return [part.choices[0].delta.content or "" for part in parts]


say(
    text=lambda: asked([{"role": "user", "content": QUESTION}]).content,
    stream=stream,
    tools=tools,
    structured=structured,
)
