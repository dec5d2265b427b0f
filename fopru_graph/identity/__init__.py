"""What a result is of, by content: files, the source of node types, and versions.

Everything that asks "was this made by exactly that?" asks here: the engine's cache keys, the folder of a cell, a sweep
(`fopru_graph.results.identity` puts them together). Equal content is equal wherever it lies and whenever it was
written. Imports no torch.
"""

from fopru_graph.identity.content import digest, file_digest, files_digest, versions, versions_digest
from fopru_graph.identity.source import Source, source_of

__all__ = ["Source", "digest", "file_digest", "files_digest", "source_of", "versions", "versions_digest"]
