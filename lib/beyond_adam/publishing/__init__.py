"""Publishing: figures, tables and claims of a chapter, numbered, citable and checked.

Chapters start from `beyond_adam.publishing.chapter.Chapter`. Nothing is imported here, because the
workflow needs the ledger and not the drawing that comes with chapters.
"""
