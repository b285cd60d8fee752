"""Records the package's answer for Llama-3.1-8B on one H100, which the tests beside this file are fed.

    python -m tests.unit.profiler.estimated.record PYTHON

where PYTHON has aiconfigurator-core (pip install plimsoll[estimate]).
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.estimated.plan import Plan, Worker, plan
from profiler.estimated.query import Answer, Request, ask
from profiler.models.catalog import find_model

FIXTURE = Path(__file__).with_name("llama-3.1-8b-h100.json")


def recorded_plan() -> Plan:
    """The worker of the recording."""
    config = find_model("llama-3.1-8b")
    return plan(Worker(config=config, name=config.name, gpu="h100-sxm", engine_version="0.24.0"))


def without_config(request: Request) -> dict[str, Any]:
    """A request as JSON holds it; the model's config is shipped anyway."""
    made: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    del made["config"]
    return made


def record(python: Path) -> None:
    request = recorded_plan().request
    answer: Answer = ask(request, python)
    fixture = {
        "source": f"output of aiconfigurator-core {answer.package} (NVIDIA) for meta-llama/Llama-3.1-8B-Instruct",
        "licence": "Apache-2.0",
        "command": "python -m tests.unit.profiler.estimated.record PYTHON",
        "request": without_config(request),
        "answer": asdict(answer),
    }
    FIXTURE.write_text(json.dumps(fixture, indent=None, separators=(",", ":")).replace(',"', ',\n"') + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
