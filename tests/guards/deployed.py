"""The files under `deploy/`, read. Not tests."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
NODES = ("first", "second")
"""The services of the Compose file that are nodes."""


def read(*parts: str) -> Any:
    """A YAML file; JSON is YAML too."""
    return yaml.safe_load(DEPLOY.joinpath(*parts).read_text("utf-8"))


def texts() -> dict[str, str]:
    """Every file by its path under `deploy/`."""
    files = (path for path in DEPLOY.rglob("*") if path.is_file() and path.name != "metrics.key")
    return {str(path.relative_to(DEPLOY)): path.read_text("utf-8") for path in files}


def expressions() -> list[str]:
    """What the dashboard asks Prometheus for."""
    board = read("compose", "grafana", "dashboards", "paceline.json")
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]
