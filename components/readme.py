"""READMEs of the components, from their signatures: python -m components.readme"""

from importlib import import_module
from pathlib import Path

import docstring_parser
import yaml
from kfp.dsl.base_component import BaseComponent

NAMES = (
    "data_prep",
    "agent_proposal",
    "evaluator_training",
    "reward_model_update",
    "ppo_update",
    "register_best",
    "submit_next",
    "retune_check",
    "retune_decide",
)


def load(name: str) -> BaseComponent:
    """The component of a folder."""
    component: BaseComponent = getattr(import_module(f"components.{name}.component"), name)
    return component


def readme(name: str) -> str:
    """What the component does, takes and gives."""
    metadata = yaml.safe_load((Path(__file__).parent / name / "metadata.yaml").read_text())
    component = load(name)
    spec = component.component_spec
    # KFP keeps no description of artifacts that a component puts out.
    described = {one.arg_name: one.description for one in docstring_parser.parse(component.python_func.__doc__).params}
    lines = [f"# {name}", "", spec.description or metadata["description"], "", "## Inputs", ""]
    lines += ["| name | type | default | |", "|---|---|---|---|"]
    for key, item in (spec.inputs or {}).items():
        default = f"`{item.default!r}`" if item.optional else ""
        lines.append(f"| `{key}` | {_kind(item.type, item.is_artifact_list)} | {default} | {item.description or ''} |")
    lines += ["", "## Outputs", "", "| name | type | |", "|---|---|---|"]
    for key, item in (spec.outputs or {}).items():
        text = item.description or described.get(key) or spec_returns(component)
        lines.append(f"| `{key}` | {_kind(item.type, item.is_artifact_list)} | {text} |")
    services = ", ".join(f"{one['name']} {one['version']}" for one in metadata["dependencies"]["external_services"])
    lines += ["", f"Stability: {metadata['stability']}. Services: {services}.", ""]
    lines += ["Generated from the signature by `python -m components.readme`."]
    return "\n".join(lines) + "\n"


def spec_returns(component: BaseComponent) -> str:
    """What the docstring says of a single value that is returned."""
    returns = docstring_parser.parse(component.python_func.__doc__).returns
    return (returns.description or "") if returns is not None else ""


def _kind(kind: object, many: bool) -> str:
    name = str(kind).removeprefix("system.").split("@")[0]
    return f"list of {name}" if many else name


def main() -> None:
    for name in NAMES:
        (Path(__file__).parent / name / "README.md").write_text(readme(name), encoding="utf-8")


if __name__ == "__main__":
    main()
