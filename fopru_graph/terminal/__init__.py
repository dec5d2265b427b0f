"""What the command line shows people: messages, progress and tables, and how numbers are written."""
