"""OpenAI's API: bodies, endpoints, shapes of answers."""
