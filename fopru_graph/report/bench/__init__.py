"""A bench as tables, files and plots."""
