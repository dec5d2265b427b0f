"""Pictures of a pipeline: what is in one, where it is placed, and how it is written down."""
