"""Declaring node types, and the registry of node types."""
