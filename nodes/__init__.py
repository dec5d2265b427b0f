"""The built-in nodes, one thin file each; installed as `fopru_graph.nodes`."""
