"""Our nodes and pipelines in ComfyUI: the widget plan, pipelines as its JSON files and back, the node pack.

``plan`` says how each node looks on the canvas; everything else follows from it. Imports no torch and nothing of
ComfyUI, but for what runs inside ComfyUI (``extension`` and what it imports).
"""
