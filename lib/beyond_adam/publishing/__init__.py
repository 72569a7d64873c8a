"""Publishing: figures, tables and claims of a chapter, numbered, citable and checked."""

from beyond_adam.publishing.chapter import Chapter
from beyond_adam.publishing.claims import Verdict

__all__ = ["Chapter", "Verdict"]
