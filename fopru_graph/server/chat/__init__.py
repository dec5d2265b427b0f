"""OpenAI's chat interface: a served pipeline is a model, and its inputs are fields of the request."""
