"""The server: pipelines on a canvas, and as models for programs."""
