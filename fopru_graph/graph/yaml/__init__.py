"""Pipeline files: read with line numbers, written byte-stable, and their JSON Schema."""
