"""What the laboratory sends: conversations, what is asked of them, how often and when."""

from memlab.workload.corpus import Corpus, generate
from memlab.workload.locomo import load_locomo
from memlab.workload.mix import Call, Loaded, Mix
from memlab.workload.spec import Workload, workload

__all__ = ["Call", "Corpus", "Loaded", "Mix", "Workload", "generate", "load_locomo", "workload"]
