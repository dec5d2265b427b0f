"""Everything that can be known to be wrong with a pipeline before it runs."""
