"""The protocol of ComfyUI's frontend: its routes, its messages and its files."""
