"""Pictures of what was kept and of what the encoder attends to."""
