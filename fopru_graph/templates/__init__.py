"""The files that `fopru-graph new` copies under another name; a pipeline is a copy of a shipped one."""
