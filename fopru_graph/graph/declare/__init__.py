"""Declaring node types, and the registry of those that exist."""
