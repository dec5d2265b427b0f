"""Scoring rules: pure functions of an answer and the right answer.

The rules are those of lmms-eval 0.7.3, with which published figures are made. tests/evaluation/golden holds the scores
of lmms-eval; if a rule differs on purpose, its docstring says so. Like lmms-eval, the rules strip white space from both
ends of an answer first.
"""
