PERSON = [{"role": "user", "content": NAME_A_PERSON}]


def structured():
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        one = instructor.from_provider("openai/auto", mode=mode, **punch)
        person = one.create(messages=PERSON, response_model=Person)
    return person.model_dump()


def stream():
    return [f"{part}" for part in client.create_partial(messages=PERSON, response_model=Person)]


say(stream=stream, structured=structured)
