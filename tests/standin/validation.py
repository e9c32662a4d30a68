"""POST /prompt's judgement on a graph: which outputs may run, and the error bodies of each age.

Only what an output depends on is looked at; numbers are converted in place, so that history shows
the converted graph, as ComfyUI's does.
"""

import sys
import traceback
from dataclasses import dataclass, field

from ages import Age
from nodes import CLASSES, input_lists


@dataclass
class Verdict:
    error: dict | str | None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict | list = field(default_factory=dict)


def problem(kind: str, message: str, details: str = "", extra: dict | None = None) -> dict:
    return {"type": kind, "message": message, "details": details, "extra_info": extra or {}}


def _missing_class(age: Age, node_id: str, node: dict) -> dict:
    where = f"Node ID '#{node_id}'"
    named = "class_type" in node
    class_type = node.get("class_type")
    if not age.uniform_errors:
        if named:
            message = f"Cannot execute because node {class_type} does not exist."
        else:
            message = "Cannot execute because a node is missing the class_type property."
        return problem("invalid_prompt", message, where)
    title = node.get("_meta", {}).get("title", class_type)
    if named:
        message = f"Node '{title}' not found. The custom node may not be installed."
    else:
        message = (
            f"Node 'ID #{node_id}' has no class_type. The workflow may be corrupted or a "
            "custom node is missing."
        )
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return problem("missing_node_type", message, where, extra)


def judge(age: Age, graph: dict, targets: list | None, context) -> Verdict:
    """Raises what ComfyUI's own code would raise on a graph that is no object: the answer is
    500."""
    none = {} if age.uniform_errors else []
    outputs = []
    for node_id in graph:
        node = graph[node_id]
        cls = CLASSES.get(node["class_type"]) if "class_type" in node else None
        if cls is None:
            return Verdict(_missing_class(age, node_id, node), node_errors=none)
        if cls.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(problem("prompt_no_outputs", "Prompt has no outputs"), node_errors=none)
    return _judge_outputs(_Check(age, graph, context), outputs)


def _judge_outputs(check: "_Check", outputs: list[str]) -> Verdict:
    good, bad, node_errors = [], [], {}
    for output in outputs:
        valid, reasons = check.output(output)
        if valid:
            good.append(output)
            continue
        bad += reasons
        for node_id, (node_valid, node_reasons) in check.seen.items():
            if not node_valid and node_reasons:
                entry = node_errors.setdefault(
                    node_id,
                    {
                        "errors": node_reasons,
                        "dependent_outputs": [],
                        "class_type": check.graph[node_id]["class_type"],
                    },
                )
                entry["dependent_outputs"].append(output)
    if good:
        return Verdict(None, good, node_errors)
    details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in bad)
    error = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return Verdict(error, [], node_errors)


class _Check:
    def __init__(self, age: Age, graph: dict, context):
        self.age, self.graph, self.context = age, graph, context
        self.seen: dict[str, tuple[bool, list]] = {}
        self.path: list[str] = []

    def output(self, node_id: str) -> tuple[bool, list]:
        self.path.clear()
        try:
            return self.node(node_id)
        except Exception as error:
            reason = problem(
                "exception_during_validation",
                "Exception when validating node",
                str(error),
                {
                    "exception_type": type(error).__name__,
                    "traceback": traceback.format_tb(sys.exc_info()[2]),
                },
            )
            self.seen[node_id] = (False, [reason])
            return self.seen[node_id]

    def node(self, node_id: str) -> tuple[bool, list]:
        if node_id in self.seen:
            return self.seen[node_id]
        if node_id in self.path:
            self._cycle(node_id)
            return False, []
        self.path.append(node_id)
        inputs = self.graph[node_id]["inputs"]
        cls = CLASSES[self.graph[node_id]["class_type"]]
        errors, valid = [], True
        for name, config, required in input_lists(cls, self.context):
            if name not in inputs:
                if required:
                    errors.append(
                        problem(
                            "required_input_missing",
                            "Required input is missing",
                            name,
                            {"input_name": name},
                        )
                    )
            elif isinstance(inputs[name], list):
                valid = self._link(name, config, inputs[name], errors) and valid
            else:
                self._literal(cls, name, config, inputs, errors)
        errors += self._own_checks(cls, inputs, errors)
        self.path.pop()
        return self.seen.setdefault(node_id, (valid and not errors, errors))

    def _cycle(self, node_id: str) -> None:
        if not self.age.cycle_error:
            return
        members = self.path[self.path.index(node_id) :]
        shown = " -> ".join(f"{m} ({self.graph[m]['class_type']})" for m in [*members, node_id])
        for member in members:
            reason = problem(
                "dependency_cycle",
                "Dependency cycle detected",
                shown,
                {"node_id": member, "cycle_nodes": members},
            )
            self.seen[member] = (False, [reason])

    def _link(self, name: str, config: list, link: list, errors: list) -> bool:
        facts = {"input_name": name, "input_config": config}
        if len(link) != 2:
            errors.append(
                problem(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    {**facts, "received_value": link},
                )
            )
            return True
        source, slot = link
        received = CLASSES[self.graph[source]["class_type"]].returns(self.age)[slot]
        if config[0] not in (received, "*") and received != "*":
            errors.append(
                problem(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({config[0]})",
                    {**facts, "received_type": received, "linked_node": link},
                )
            )
            return True
        depth = len(self.path)
        try:
            return self.node(source)[0]
        except Exception as error:
            del self.path[depth:]
            self.seen[source] = (
                False,
                [
                    problem(
                        "exception_during_inner_validation",
                        "Exception when validating inner node",
                        str(error),
                        {
                            **facts,
                            "exception_message": str(error),
                            "exception_type": type(error).__name__,
                            "traceback": traceback.format_tb(sys.exc_info()[2]),
                            "linked_node": link,
                        },
                    )
                ],
            )
            return False

    def _literal(self, cls, name: str, config: list, inputs: dict, errors: list) -> None:
        kind, options = config[0], config[1] if len(config) > 1 else {}
        value = inputs[name]
        facts = {"input_name": name, "input_config": config}
        converter = (
            {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(kind)
            if isinstance(kind, str)
            else None
        )
        if converter is not None:
            try:
                value = inputs[name] = converter(value)
            except Exception as error:
                errors.append(
                    problem(
                        "invalid_input_type",
                        f"Failed to convert an input value to a {kind} value",
                        f"{name}, {value}, {error}",
                        {**facts, "received_value": value, "exception_message": str(error)},
                    )
                )
                return
        if name in cls.checked:
            return
        if "min" in options and value < options["min"]:
            errors.append(
                problem(
                    "value_smaller_than_min",
                    f"Value {value} smaller than min of {options['min']}",
                    name,
                    {**facts, "received_value": value},
                )
            )
        elif "max" in options and value > options["max"]:
            errors.append(
                problem(
                    "value_bigger_than_max",
                    f"Value {value} bigger than max of {options['max']}",
                    name,
                    {**facts, "received_value": value},
                )
            )
        elif isinstance(kind, list) and value not in kind:
            shown = f"(list of length {len(kind)})" if len(kind) > 20 else str(kind)
            errors.append(
                problem(
                    "value_not_in_list",
                    "Value not in list",
                    f"{name}: '{value}' not in {shown}",
                    {**facts, "received_value": value},
                )
            )

    def _own_checks(self, cls, inputs: dict, errors: list) -> list:
        """What the class itself refuses, asked only about literals that are there."""
        found = []
        for name in cls.checked:
            if errors or name not in inputs or isinstance(inputs[name], list):
                continue
            answer = cls.check(self.context, name, inputs[name])
            if answer is not True:
                found.append(
                    problem(
                        "custom_validation_failed",
                        "Custom validation failed for node",
                        f"{name} - {answer}",
                        {"input_name": name},
                    )
                )
        return found
