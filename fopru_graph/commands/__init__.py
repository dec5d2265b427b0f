"""The commands: their options, the opening of pipelines, and what each of the larger commands does."""
