"""Model surgery: stock transformers models behind one small interface, never forked, always left as they were.

`images` reads pictures, `checkpoint` looks at a model's files and `load` opens it; `family` is the interface that every
model family fills in one file under `families/`; `tap` reads one layer's queries and keys, `prompt` shortens prompts,
`cut` prunes inside the language model, `decode` generates with `sampling` and `streaming`.
"""
