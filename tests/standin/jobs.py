"""/api/jobs of the newer age: queue and history as one list."""

import uuid

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")


def _files(outputs: dict):
    for node_id, output in outputs.items():
        for kind, items in output.items():
            for item in items if isinstance(items, list) else []:
                yield node_id, kind, item


def _queued(item, status: str) -> dict:
    return {
        "id": item[1],
        "status": status,
        "priority": item[0],
        "create_time": item[3].get("create_time"),
        "outputs_count": 0,
        "previewable_outputs_count": 0,
    }


def _ended(prompt_id: str, entry: dict) -> dict:
    messages = dict(entry["status"]["messages"])
    if entry["status"]["completed"]:
        status = "completed"
    else:
        status = "cancelled" if "execution_interrupted" in messages else "failed"
    ends = [
        messages[name]["timestamp"]
        for name in ("execution_success", "execution_error", "execution_interrupted")
        if name in messages
    ]
    files = list(_files(entry["outputs"]))
    shown = [
        (node_id, kind, item)
        for node_id, kind, item in files
        if isinstance(item, dict) and isinstance(item.get("filename"), str)
    ]
    job = {
        "id": prompt_id,
        "status": status,
        "priority": entry["prompt"][0],
        "create_time": entry["prompt"][3].get("create_time"),
        "execution_start_time": messages["execution_start"]["timestamp"],
        "execution_end_time": ends[-1] if ends else None,
        "outputs_count": len(files),
        "previewable_outputs_count": len(shown),
    }
    if shown:
        node_id, kind, item = shown[0]
        job["preview_output"] = {**item, "nodeId": node_id, "mediaType": kind}
    return job


def all_jobs(queue) -> list[dict]:
    running, pending = queue.snapshot()
    jobs = [_queued(item, "pending") for item in pending]
    jobs += [_queued(item, "in_progress") for item in running]
    jobs += [_ended(prompt_id, entry) for prompt_id, entry in queue.entries().items()]
    return sorted(jobs, key=lambda job: job["create_time"] or 0, reverse=True)


def bad_statuses(wanted: list[str]) -> list[str]:
    return [status for status in wanted if status not in STATUSES]


def page(queue, wanted: list[str] | None, limit: int | None, offset: int) -> dict:
    jobs = [job for job in all_jobs(queue) if wanted is None or job["status"] in wanted]
    end = None if limit is None else offset + limit
    return {
        "jobs": jobs[offset:end],
        "pagination": {
            "offset": offset,
            "limit": limit,
            "total": len(jobs),
            "has_more": end is not None and end < len(jobs),
        },
    }


def one(queue, prompt_id: str) -> dict | None:
    entry = queue.entries(prompt_id).get(prompt_id)
    if entry is None:
        return next((job for job in all_jobs(queue) if job["id"] == prompt_id), None)
    return {
        **_ended(prompt_id, entry),
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]},
    }


def is_job_id(text) -> bool:
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False
