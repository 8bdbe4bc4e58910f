"""NTK and ZiCo of the sub-networks that ``audit_masks`` measured, at several N and D, over independent draws."""

from pathlib import Path
from typing import Any

from entpruner.audit.commands.bench import journal_of, start_context, write_audit
from entpruner.audit.sweeps import proxied
from entpruner.models.surgery import drop_blocks
from entpruner.proxies.measure import ProxySamples
from entpruner.rules.audit import ProxiesSettings
from entpruner.system.devices import configure
from entpruner.system.files import read_json
from entpruner.system.recording import Recorder


def run(settings: ProxiesSettings, *, store: Path, init: Path, masks: Path, out: Path) -> None:
    recorder = Recorder([__name__], settings, configure(settings.compute))
    context = start_context(settings, store, init)
    journal = journal_of(out, recorder, store, init, masks)
    draws = [
        ProxySamples(
            context.process, context.images, settings.seed, f"{settings.artefact}/proxies{repeat}", context.device
        )
        for repeat in range(settings.sweeps.repeats)
    ]

    def of(measured: dict[str, Any]) -> Any:
        dropped = tuple(measured["dropped"])

        def compute() -> Any:
            network = drop_blocks(context.model, dropped)
            return proxied(network, context.process, draws, settings.sweeps, settings.proxies).model_dump(mode="json")

        return journal.record(str(dropped), compute)

    found = read_json(masks)
    content = {
        "sweeps": settings.sweeps.model_dump(mode="json"),
        "masks": [of(mask) for mask in found["masks"]],
        "chains": [[of(mask) for mask in chain] for chain in found["chains"]],
    }
    write_audit(out, content, recorder, journal)
