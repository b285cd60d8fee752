"""One installation on a real control plane for the whole folder; tests start planners and break what they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault_tolerance.kubernetes.site import Site
from tests.fault_tolerance.planner.traffic import LOW_RPS
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.fixtures import control_plane, new_namespace
from tests.kubernetes.installation.graphs import KINDS
from tests.kubernetes.installation.installation import installed
from tests.kubernetes.proxy import running_proxy

__all__ = ["control_plane"]

#: The installation, and what ends it, from the folder's first test to the last of its tests in a row: another folder's
#: tests want the cluster's nodes, and the machine. Files may run in any order, so that it may be made more than once.
_OF_FOLDER = ExitStack()
_MADE: list[Site] = []


def _remove() -> None:
    _MADE.clear()
    _OF_FOLDER.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """A scope that pytest lacks: a folder that is no package. (Named as it is, it would hide the library.)"""
    if nextitem is not None and Path(__file__).parent not in nextitem.path.parents:
        _remove()


@pytest.fixture(scope="session")
def _removed(control_plane: Cluster) -> Iterator[None]:
    """Nothing of it outlives the cluster."""
    yield
    _remove()


@pytest.fixture(scope="module")
def shared(_removed: None, control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if not _MADE:
        control_plane.needs_own()
        assert isinstance(control_plane, ControlPlane)
        folder, enter = tmp_path_factory.mktemp("site"), _OF_FOLDER.enter_context
        with ExitStack() as failed:
            failed.callback(_remove)
            proxy = enter(running_proxy(control_plane))
            namespace = enter(new_namespace(control_plane))
            made = enter(installed(control_plane, namespace, KINDS["deployments"], folder))
            _MADE.append(Site(made, proxy, made.traffic()))
            failed.pop_all()
    (site,) = _MADE
    return site


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """The shared one; whole again, and with little load, afterwards."""
    yield shared
    shared.proxy.heal()
    shared.traffic.rps = LOW_RPS
