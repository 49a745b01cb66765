"""Exported graphs in ONNX Runtime."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue, SessionOptions

from maskwire_core.models.graph_archive import OnnxGraph
from maskwire_core.models.graph_check import check_graph

Provider = str | tuple[str, Mapping[str, str]]
"""An execution provider of ONNX Runtime: its name, or its name and options."""


class OnnxSessions:
    """Sessions of a bundle's graphs, which share one copy of the bundle's constants. May be used from several threads.

    Args:
        graphs: Graphs by name.
        weights: The initializers of all graphs by name.
        providers: What runs an operation: the first that can.

    Raises:
        CorruptValue: A graph would read files; see `check_graph`.
    """

    def __init__(
        self,
        graphs: Mapping[str, OnnxGraph],
        weights: Mapping[str, NDArray[Any]],
        providers: Sequence[Provider] = ("CPUExecutionProvider",),
    ) -> None:
        for graph in graphs.values():
            check_graph(graph)
        self._graphs, self._providers = graphs, list(providers)
        self._weights = {name: OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        self._sessions: dict[tuple[str, int], InferenceSession] = {}
        self._opening = threading.Lock()

    def __contains__(self, graph: str) -> bool:
        return graph in self._graphs

    def open(self, graph: str, threads: int) -> InferenceSession:
        """Returns the session of a graph, which is built when it is first asked for.

        Args:
            graph: Name of the graph.
            threads: CPU threads of one run.
        """
        with self._opening:
            session = self._sessions.get((graph, threads))
            if session is None:
                session = self._sessions[graph, threads] = self._build(graph, threads)
            return session

    def run(self, graph: str, threads: int, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs a graph. Returns its outputs by name.

        Args:
            graph: Name of the graph.
            threads: CPU threads of the run.
            inputs: Values by name; those that the graph does not have are left out.
        """
        session = self.open(graph, threads)
        names = [output.name for output in session.get_outputs()]
        wanted = {each.name: inputs[each.name] for each in session.get_inputs()}
        return dict(zip(names, session.run(names, wanted), strict=True))

    def _build(self, graph: str, threads: int) -> InferenceSession:
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads spin between the operations of a run, but not after it, when they would take the cores from other
        # workers and from rendering masks.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        wanted = self._graphs[graph]
        options.add_external_initializers(list(wanted.weights), [self._weights[name] for name in wanted.weights])
        return InferenceSession(wanted.model, options, providers=self._providers)
