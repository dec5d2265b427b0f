"""What a result is and what it is of: files, statistics, comparisons."""
