"""Jobs as the frontend reads them: in ComfyUI's older history, and as the entries of its queue panel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fopru_graph.server.canvas.messages import LOST
from fopru_graph.server.queue import Job, State

STATUS: dict[State, str] = {
    "queued": "pending", "running": "in_progress", "done": "completed", "failed": "failed", "lost": "failed",
    "interrupted": "cancelled",
}  # fmt: skip


def states_of(status: str) -> tuple[State, ...]:
    """The states that the statuses of a query mean, ``pending,failed`` for instance; all of them for none."""
    asked = [part for part in status.split(",") if part]
    return tuple(state for state, name in STATUS.items() if not asked or name in asked)


def history_of(job: Job) -> dict[str, Any]:
    """An ended job as ``GET /history`` has it."""
    outputs = _outputs(job)
    return {
        "prompt": queue_entry(job),
        "outputs": outputs,
        "status": {
            "status_str": "success" if job.state == "done" else "error",
            "completed": job.state == "done",
            "messages": _messages(job),
        },
        "meta": {
            node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node} for node in outputs
        },
    }


def queue_entry(job: Job) -> list[Any]:
    """A job as ``GET /queue`` has it: number, id, prompt, what came with it, and the nodes that are wanted."""
    return [job.number, job.id, job.prompt, {"extra_pnginfo": _info(job)}, job.extra.get("wanted", [])]


def job_entry(job: Job) -> dict[str, Any]:
    """A job as ``GET /jobs`` has it."""
    files = list(_files(job))
    workflow = _info(job).get("workflow")
    return {
        "id": job.id,
        "status": STATUS[job.state],
        "create_time": _ms(job.created),
        "execution_start_time": _ms(job.started),
        "execution_end_time": _ms(job.ended),
        "preview_output": files[-1] if files else None,
        "outputs_count": len(files),
        "previewable_outputs_count": len(files),
        "execution_error": _error(job),
        "workflow_id": workflow.get("id") if isinstance(workflow, dict) else None,
    }


def job_detail(job: Job) -> dict[str, Any]:
    """A job as ``GET /jobs/ID`` has it: with its workflow, which the panel opens, and what it showed."""
    return job_entry(job) | {
        "workflow": {"prompt": job.prompt, "extra_data": {"extra_pnginfo": _info(job)}},
        "outputs": _outputs(job),
        "update_time": _ms(job.ended or job.started or job.created),
        "execution_status": history_of(job)["status"],
    }


def _info(job: Job) -> dict[str, Any]:
    info = job.extra.get("extra_pnginfo")
    return info if isinstance(info, dict) else {}


def _outputs(job: Job) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = (job.result or {}).get("outputs", {})
    return found


def _files(job: Job) -> Iterator[dict[str, Any]]:
    for node, shown in _outputs(job).items():
        for image in shown.get("images", ()):
            yield {**image, "nodeId": node, "mediaType": "images"}


def _messages(job: Job) -> list[Any]:
    messages = list((job.result or {}).get("messages", []))
    if job.state == "lost":
        messages.append(["execution_error", _lost(job)])
    return messages


def _error(job: Job) -> dict[str, Any] | None:
    if job.state not in ("failed", "lost"):
        return None
    return next((data for kind, data in _messages(job) if kind == "execution_error"), None)


def _lost(job: Job) -> dict[str, Any]:
    return {
        "prompt_id": job.id, "timestamp": _ms(job.ended), "node_id": "", "node_type": "", "executed": [],
        "exception_message": LOST, "exception_type": "Lost", "traceback": [], "current_inputs": {},
        "current_outputs": [],
    }  # fmt: skip


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
