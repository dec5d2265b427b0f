"""What a result is: the files it lies in, their schema and reading, statistics and comparisons. Imports no torch."""
