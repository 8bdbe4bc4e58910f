"""How CED ranks the blocks when it is asked again with other draws."""

from dataclasses import replace

from entpruner.scores import ScoreContext, Scores, score


def ranking(context: ScoreContext, draws: int, repeat: int) -> Scores:
    """Scores by CED on ``draws`` draws; each ``repeat`` has a set of draws of its own."""
    settings = context.settings.model_copy(update={"draws": draws})
    return score("ced", replace(context, settings=settings, artefact=f"{context.artefact}/repeat{repeat}"))
