"""``python -m fopru_graph``: the command line as launchers and sweeps start it, without an installed script."""

from fopru_graph.cli import main

if __name__ == "__main__":
    main()
