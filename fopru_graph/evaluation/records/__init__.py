"""Where records come from: JSON lines, parquet files or the Hugging Face hub, read row by row in any order."""

from fopru_graph.evaluation.records.layout import Hub, Join, Layout, Row
from fopru_graph.evaluation.records.table import TableRecords, open_records

__all__ = ["Hub", "Join", "Layout", "Row", "TableRecords", "open_records"]
