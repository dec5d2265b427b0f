"""Pipeline files: reading them with line numbers, writing them byte-stable, their JSON Schema."""
