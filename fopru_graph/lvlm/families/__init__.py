"""Model families, one file each; `fopru_graph.lvlm.served` lists them and loads the one that serves a checkpoint."""
