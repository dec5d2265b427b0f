"""Figures of a run: times, memory, token counts."""
