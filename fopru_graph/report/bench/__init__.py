"""A bench as tables on the terminal, as files and as a picture, and beside the figures of the paper."""
