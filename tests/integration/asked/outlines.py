say(
    text=lambda: model(QUESTION),
    stream=lambda: list(model.stream(QUESTION)),
    structured=lambda: json.loads(model(NAME_A_PERSON, Person)),
)
