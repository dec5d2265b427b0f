"""A server for pipelines: a canvas for people, and OpenAI's chat interface for programs (``fopru-graph serve``)."""
