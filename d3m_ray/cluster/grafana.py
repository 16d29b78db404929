"""The board of a sweep, put where the Grafana that Ray has configured looks for boards."""

import contextlib
import os
import shutil
from pathlib import Path

import ray._private.worker

BOARD = Path(__file__).with_name("grafana_dashboard.json")
# The variables by which Ray's dashboard is told of other folders than the session's.
BOARDS_VARIABLE, METRICS_VARIABLE = "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", "RAY_METRICS_OUTPUT_ROOT"


def place_board() -> bool:
    """Put the board beside Ray's own; whether it is there now.

    It can be on the machine of the cluster's head alone, once the dashboard has made the folder, some seconds after Ray
    has started. Where this user may not write there, the board is for somebody else to import.
    """
    folder = _boards_folder()
    if folder is None or not folder.is_dir():
        return False
    with contextlib.suppress(OSError):
        unfinished = folder / f".{BOARD.name}.{os.getpid()}"  # Grafana reads what ends in .json
        shutil.copyfile(BOARD, unfinished)
        unfinished.replace(folder / f"d3m_ray_{BOARD.name}")
    return True


def _boards_folder() -> Path | None:
    """Where Ray's dashboard writes its boards, were it on this machine; None where Ray runs elsewhere."""
    node = ray._private.worker._global_node
    if node is None:
        return None
    metrics = os.environ.get(METRICS_VARIABLE) or Path(node.get_session_dir_path()) / "metrics"
    return Path(os.environ.get(BOARDS_VARIABLE) or Path(metrics) / "grafana" / "dashboards")
