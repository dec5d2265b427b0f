"""Model surgery: stock transformers models behind one small interface, never forked, always left as they were.

`load` opens a model, `family` is the interface that every model family fills in one file under `families/`, `tap` reads
one layer's queries and keys, `prompt` shortens prompts, `cut` prunes inside the language model, `decode` generates.
"""
