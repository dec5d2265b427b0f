"""Pictures of kept tokens and of the attention of the vision encoder."""
