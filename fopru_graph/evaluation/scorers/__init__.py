"""How answers are judged: pure functions of an answer and what is right, one file a rule.

A rule changes no argument and keeps nothing between calls, so scoring anything twice gives the same. The rules are
those of lmms-eval 0.7.3, with which published figures are made; tests/evaluation/golden holds its own scores, and
where a rule of ours differs on purpose its docstring says so. Before any rule sees an answer, that harness strips
white space from both of its ends; so do these functions.
"""
