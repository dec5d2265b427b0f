"""Model families, one file each; `registry` lists them and finds the family that serves a checkpoint."""
