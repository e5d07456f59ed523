"""What GPU memory holds over time: model states, activations, working memory, and what is reserved beside them."""

from llmsim.memory.summary import Memory, memory_of

__all__ = ["Memory", "memory_of"]
