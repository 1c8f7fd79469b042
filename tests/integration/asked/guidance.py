from guidance import json as json_of


def structured():
    state = model
    with user():
        state += NAME_A_PERSON
    with assistant():
        state += json_of(name="person", schema=Person)
    return json.loads(state["person"])


say(text=lambda: model["answer"], structured=structured)
