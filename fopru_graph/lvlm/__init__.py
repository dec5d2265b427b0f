"""Stock transformers models behind one small interface. Models are never forked and always left as they were.

`loading` opens checkpoints, `inputs` reads pictures and builds prompts, `families` holds one file per model family
behind the interface of `families.family`, and `decoding` generates answers and prunes inside the language model.
"""
