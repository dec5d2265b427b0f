"""Where records come from: JSON lines, parquet files or the Hugging Face hub, read a row at a time in any order."""

from fopru_graph.evaluation.records.layout import Hub, Join, Layout
from fopru_graph.evaluation.records.table import TableRecords, open_records

__all__ = ["Hub", "Join", "Layout", "TableRecords", "open_records"]
