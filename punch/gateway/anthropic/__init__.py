"""Anthropic's dialect: the Messages API, the counting of tokens, and its list of models."""
