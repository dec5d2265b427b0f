"""Model families, one file each; `registry` finds the family that serves a checkpoint and loads it when needed."""
