"""A small stand-in for ComfyUI, written from its behaviour: enough to load a node pack and run prompts without it.

``installed`` puts its modules where ComfyUI's would be; a `ComfyUI` loads packs, describes their nodes and runs jobs.
"""

from tests.comfy.standin.execution import ComfyUI, Job
from tests.comfy.standin.modules import installed

__all__ = ["ComfyUI", "Job", "installed"]
