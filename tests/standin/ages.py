"""What differs between the two recorded ComfyUIs, as data.

The rest of the stand-in asks an Age, never a version string. A feature that both have is not here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Age:
    version: str
    # progress_state, feature_flags, /features, previews with metadata, the client's prompt_id
    async_executor: bool
    jobs: bool  # /api/jobs and its cancelling twins
    partial_targets: bool  # partial_execution_targets in POST /prompt
    interrupt_by_id: bool
    history_offset: bool
    create_time: bool  # added to extra_data by the server
    uniform_errors: bool  # error bodies are objects, node_errors too, even when empty
    cycle_error: bool  # dependency_cycle in node_errors
    fetch_site_guard: bool  # Sec-Fetch-Site: cross-site is refused
    strict_view: bool  # nosniff, attachment for what a browser would run, quotes escaped
    message_newline: bool  # exception_message ends in \n
    coloured_log: bool
    bare_replies: bool  # an empty answer has no Content-Type
    anonymous_404: bool  # an unknown path is an empty chunked 404 instead of a text
    reported_version: str
    system_os: str
    python_version: str
    pytorch_version: str


OLD = Age(
    version="0.3.7",
    async_executor=False,
    jobs=False,
    partial_targets=False,
    interrupt_by_id=False,
    history_offset=False,
    create_time=False,
    uniform_errors=False,
    cycle_error=False,
    fetch_site_guard=False,
    strict_view=False,
    message_newline=False,
    coloured_log=False,
    bare_replies=False,
    anonymous_404=False,
    reported_version="unknown",
    system_os="posix",
    python_version="3.11.2 (main, Apr 28 2025, 14:11:48) [GCC 12.2.0]",
    pytorch_version="1.13.0a0",
)

NEW = Age(
    version="0.33.0",
    async_executor=True,
    jobs=True,
    partial_targets=True,
    interrupt_by_id=True,
    history_offset=True,
    create_time=True,
    uniform_errors=True,
    cycle_error=True,
    fetch_site_guard=True,
    strict_view=True,
    message_newline=True,
    coloured_log=True,
    bare_replies=True,
    anonymous_404=True,
    reported_version="0.33.0",
    system_os="linux",
    python_version="3.13.5 (main, Aug 10 2026, 12:06:59) [GCC 14.2.0]",
    pytorch_version="2.6.0+debian",
)

AGES = {age.version: age for age in (OLD, NEW)}
