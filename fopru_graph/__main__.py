"""``python -m fopru_graph``: the command line without an installed script, as launchers and sweeps start it."""

from fopru_graph.cli import main

if __name__ == "__main__":
    main()
