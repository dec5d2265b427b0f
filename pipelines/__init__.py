"""The pipelines that ship, as YAML files; installed as `fopru_graph.pipelines`."""
