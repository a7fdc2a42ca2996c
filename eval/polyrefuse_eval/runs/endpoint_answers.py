"""The completions of a run of a model behind an endpoint: its baselines, as the service gives them."""

from __future__ import annotations

from dataclasses import replace

from polyrefuse_data.cluster.tasks import Computation, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.endpoint.prices import counted_tokens
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.results.service_files import service_notes
from polyrefuse_eval.results.settings import Measurement
from polyrefuse_eval.runs.endpoint_tasks import AskPrompts, IdentifyService
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.service_versions import ServiceAnswerStage, ServiceVersions


class EndpointAnswerStage(ServiceAnswerStage):
    """Get the completions of the run `plan` from the service of `endpoint`.

    None comes from a cache: what a service answered once is no proof of what it answers now.
    """

    def __init__(self, plan: RunPlan, endpoint: EndpointSpec, progress: GridProgress) -> None:
        super().__init__(plan, progress)
        self._endpoint = endpoint
        self._service = ServiceVersions(endpoint.label, progress.say)

    def start(self) -> list[Task]:
        """Return the first tasks; what the completions that are there cost is spent."""
        completions = list(self._completions())
        self._service.note(completions)
        price = self._endpoint.price
        if price is not None:
            tokens = [counted_tokens(note) for note in service_notes(completions)]
            spent = sum(price.cost(counted) for counted in tokens if counted is not None)
            self._endpoint = replace(self._endpoint, spent=spent)
        return super().start()

    def _identifying(self) -> Computation:
        return IdentifyService(endpoint=self._endpoint)

    def _answering(self, measurement: Measurement, rows: tuple[Row, ...]) -> AskPrompts:
        return AskPrompts(endpoint=self._endpoint, measurement=measurement, rows=rows)
