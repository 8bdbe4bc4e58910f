"""How noise meets data: Gaussian diffusion (DiT) and flow matching (SiT) behind one interface."""

from entpruner.params.backbones import Diffusion, ProcessSettings
from entpruner.process.base import Process as Process
from entpruner.process.diffusion import GaussianDiffusion
from entpruner.process.flow import FlowMatching


def make_process(settings: ProcessSettings) -> Process:
    return GaussianDiffusion(settings) if isinstance(settings, Diffusion) else FlowMatching(settings)
