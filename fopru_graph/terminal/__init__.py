"""What the command line shows people: progress, tables and catalogues."""
