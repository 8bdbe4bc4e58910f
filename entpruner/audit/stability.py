"""Does CED rank the blocks the same way again? Over draws, timesteps, data, and before and after fine-tuning."""

from dataclasses import replace

from entpruner.scores import ScoreContext, Scores, score


def ranking(context: ScoreContext, draws: int, repeat: int) -> Scores:
    """CED on ``draws`` draws of an independent set ``repeat``."""
    settings = context.settings.model_copy(update={"draws": draws})
    return score("ced", replace(context, settings=settings, artefact=f"{context.artefact}/repeat{repeat}"))
