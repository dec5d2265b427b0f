"""Answering prompts: prefill, decoding, pruning inside the language model."""
